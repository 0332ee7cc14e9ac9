"""Revision: stops for the right reason, asks as often as it says, and hears the verifier's remark."""

from __future__ import annotations

import pytest
from canned import ALWAYS, NEVER, ORACLE, Canned, Verdicts, chance, completion_of, pair_of
from scipy import stats

from genai_core.correction.post_hoc.revise import UNEXPLAINED, revise
from genai_core.correction.transitions import count_transitions
from genai_core.errors import StageFailedError
from genai_core.feedback.types import Feedback
from genai_core.generation.driver import drive


def test_a_verifier_that_always_accepts_costs_one_call_and_changes_nothing():
    complete = Canned(lambda request: f"draft of {request.row_id}")
    (episode,) = drive([revise(pair_of("p"), ALWAYS)], complete)
    assert (episode.final.text, episode.stop_reason, len(complete.asked)) == ("draft of p", "accept", 1)
    given = Canned(lambda request: "never asked")
    (episode,) = drive([revise(pair_of("p"), ALWAYS, draft=completion_of("p", "given"))], given)
    assert (episode.final.text, given.asked) == ("given", [])


@pytest.mark.parametrize("max_turns", [1, 2, 5])
def test_a_verifier_that_never_accepts_ends_after_exactly_so_many_turns(max_turns):
    complete = Canned(lambda request: f"says {request.row_id}")
    (episode,) = drive([revise(pair_of("p"), NEVER, max_turns=max_turns)], complete)
    assert (episode.n_revisions, episode.stop_reason) == (max_turns, "max_turns")
    assert len(complete.asked) == 1 + max_turns
    assert episode.final.text == f"says p/revision-{max_turns}"  # of equally bad drafts the last
    assert episode.n_tokens == 2 * (1 + max_turns)


def test_an_identity_refiner_changes_nothing():
    pairs = [pair_of(f"p{i}", "right" if i % 3 else "other") for i in range(60)]
    complete = Canned(lambda request: request.draft or "right")
    drafts = [completion_of(pair.pair_id, "right") for pair in pairs]
    episodes = drive([revise(p, NEVER, draft=d, max_turns=4) for p, d in zip(pairs, drafts, strict=True)], complete)
    assert {(episode.stop_reason, episode.n_revisions) for episode in episodes} == {("no_change", 1)}
    before = [draft.text == pair.completion for pair, draft in zip(pairs, drafts, strict=True)]
    after = [episode.final.text == pair.completion for pair, episode in zip(pairs, episodes, strict=True)]
    table = count_transitions(before, after, [1] * 60, [2] * 60)
    assert (table.cc, table.ci, table.ic, table.ii) == (40, 0, 0, 20)


def test_turns_are_geometric_when_each_revision_is_fixed_with_one_chance():
    pairs = [pair_of(f"p{i}") for i in range(4000)]
    complete = Canned(lambda request: "right" if chance(request.row_id) < 0.4 else f"wrong {request.row_id}")
    episodes = drive([revise(pair, ORACLE, max_turns=3) for pair in pairs], complete)
    observed = [sum(e.n_revisions == turns and e.stop_reason == "accept" for e in episodes) for turns in range(4)]
    observed.append(sum(e.stop_reason == "max_turns" for e in episodes))
    expected = [4000 * 0.4 * 0.6**turns for turns in range(4)] + [4000 * 0.6**4]
    assert stats.chisquare(observed, expected).pvalue > 0.01


def test_the_model_is_shown_its_draft_and_the_remark():
    complete = Canned(lambda request: "first" if not request.draft else "second")
    drive([revise(pair_of("p"), NEVER)], complete)
    asked = complete.asked[1]
    assert (asked.row_id, asked.prompt) == ("p/revision-1", "prompt of p")
    assert (asked.draft, asked.remark) == ("first", "remark on first")

    class Silent:
        def judge(self, pair, answer, *, use_gold):
            return Feedback(0.0)

    drive([revise(pair_of("p"), Silent())], complete)
    assert complete.asked[-1].remark == UNEXPLAINED


def test_the_best_draft_is_kept_and_not_the_last():
    scores = {"p": 0.3, "p/revision-1": 0.4, "p/revision-2": 0.1}
    (episode,) = drive(
        [revise(pair_of("p"), Verdicts(lambda pair, answer: scores[answer]), max_turns=2)], Canned(lambda r: r.row_id)
    )
    assert episode.final.text == "p/revision-1"


def test_feedback_that_has_seen_gold_is_refused():
    with pytest.raises(StageFailedError, match="has seen the right answer"):
        drive([revise(pair_of("p"), Verdicts(lambda p, a: 0.0, uses_gold=True))], Canned(lambda r: "x"))


def test_a_conversation_that_has_grown_too_long_ends():
    complete = Canned(lambda request: f"says {request.row_id}")
    (episode,) = drive([revise(pair_of("p"), NEVER, max_turns=5, fits=lambda r: not r.row_id.endswith("3"))], complete)
    assert (episode.n_revisions, episode.stop_reason) == (2, "too_long")
