"""Best of n and the vote: the laws of self_improvement.md 1.5 and 1.8."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from canned import ALWAYS, ORACLE, Canned, Verdicts, chance, completion_of, pair_of

from genai_core.correction.generation_time.best_of_n import best_of_n
from genai_core.correction.generation_time.self_consistency import _is_decided, count_votes, self_consistency
from genai_core.errors import StageFailedError
from genai_core.feedback.types import Feedback
from genai_core.generation.driver import drive


def test_an_oracle_gives_pass_at_n_exactly():
    n, right, k = 20, 3, 5
    pool = ["right"] * right + ["wrong"] * (n - right)
    found = 0
    for subset in itertools.combinations(range(n), k):
        complete = Canned(lambda request, subset=subset: pool[subset[int(request.row_id.rpartition("/")[2])]])
        found += drive([best_of_n(pair_of("p"), k, ORACLE)], complete)[0].best.text == "right"
    expected = 1 - math.comb(n - right, k) / math.comb(n, k)
    assert found / math.comb(n, k) == pytest.approx(expected) == pytest.approx(0.600877, abs=1e-6)


def test_a_verifier_that_knows_nothing_gives_pass_at_1_and_the_oracle_more():
    pairs = [pair_of(f"p{i}") for i in range(2000)]
    complete = Canned(lambda request: "right" if chance(request.row_id) < 0.3 else f"wrong {request.row_id}")
    rates = {
        name: sum(chosen.best.text == "right" for chosen in drive([best_of_n(p, 4, v) for p in pairs], complete)) / 2000
        for name, v in {"blind": Verdicts(lambda pair, answer: 0.5), "oracle": ORACLE, "first": ALWAYS}.items()
    }
    band = 4 * math.sqrt(0.3 * 0.7 / 2000)
    assert abs(rates["blind"] - 0.3) < band and rates["first"] == rates["blind"]
    assert abs(rates["oracle"] - (1 - 0.7**4)) < band


def test_random_scores_choose_a_random_candidate():
    rng = random.Random(0)
    pairs = [pair_of(f"p{i}") for i in range(3000)]
    noise = Verdicts(lambda pair, answer: rng.random())
    chosen = drive([best_of_n(pair, 4, noise) for pair in pairs], Canned(lambda request: request.row_id))
    counts = [sum(c.best.text.endswith(f"/{i}") for c in chosen) for i in range(4)]
    assert all(abs(count - 750) < 4 * math.sqrt(750 * 0.75) for count in counts)


def test_more_candidates_begin_with_the_same_ones_and_one_is_the_first():
    complete = Canned(lambda request: f"answer to {request.row_id}")
    one, four = (drive([best_of_n(pair_of("p"), n, ALWAYS)], complete)[0] for n in (1, 4))
    assert one.best.text == "answer to p/0" and one.candidates[0] == four.candidates[0]
    assert [request.row_id for request in complete.asked] == ["p/0", "p/0", "p/1", "p/2", "p/3"]
    assert (one.n_tokens, four.n_tokens) == (2, 8)


def test_the_greedy_answer_is_one_of_the_candidates_and_of_the_ballots():
    complete = Canned(lambda request: "greedy" if request.greedy else f"sampled {request.row_id}")
    chosen = drive([best_of_n(pair_of("p"), 4, Verdicts(lambda p, answer: float(answer == "greedy")))], complete)[0]
    assert chosen.best.text == "greedy" and chosen.sampled.text == "sampled p/1"
    assert [request.greedy for request in complete.asked] == [True, False, False, False]
    voted = drive([self_consistency(pair_of("p"), 4, 2)], complete)[0]
    assert [ballot.text for ballot in voted.ballots] == ["greedy", "sampled p/1", "sampled p/2", "sampled p/3"]


def test_ties_go_to_the_likelier_a_token_and_malformed_answers_lose():
    logps = {"p/0": (-4.0, 2), "p/1": (-6.0, 6), "p/2": (-1.0, 1), "p/3": (-0.1, 1)}

    def complete(requests):
        return [completion_of(r.row_id, r.row_id, *logps[r.row_id]) for r in requests]

    class LastIsMalformed:
        def judge(self, pair, answer, *, use_gold):
            return Feedback(1.0, valid=answer != "p/3")

    # p/1 and p/2 have -1 nat a token, p/0 has -2, p/3 has most but could not be judged: the first of the equal wins
    assert drive([best_of_n(pair_of("p"), 4, LastIsMalformed())], complete)[0].best.text == "p/1"


def test_partial_checks_decide_between_refused_answers():
    class Steps:
        def judge(self, pair, answer, *, use_gold):
            return Feedback(0.0, step_scores=(1.0, float(answer == "p/2")))

    assert drive([best_of_n(pair_of("p"), 4, Steps())], Canned(lambda r: r.row_id))[0].best.text == "p/2"


def test_feedback_that_has_seen_gold_is_refused():
    with pytest.raises(StageFailedError, match="has seen the right answer"):
        drive([best_of_n(pair_of("p"), 2, Verdicts(lambda p, a: 1.0, uses_gold=True))], Canned(lambda r: "x"))


def random_ballots(rng: random.Random, n: int):
    return [completion_of(f"p/{i}", rng.choice("aaabbc"), -rng.choice([1.0, 2.0, 3.0])) for i in range(n)]


def test_an_early_stop_elects_what_the_full_vote_elects():
    rng = random.Random(1)
    stopped_early = 0
    for _ in range(1000):
        n, step = rng.randint(1, 12), rng.randint(1, 4)
        ballots = {ballot.row_id: ballot for ballot in random_ballots(rng, n)}

        def complete(requests, ballots=ballots):
            return [ballots[request.row_id] for request in requests]

        early, full = drive([self_consistency(pair_of("p"), n, step), self_consistency(pair_of("p"), n)], complete)
        assert early.answer.text == full.answer.text
        stopped_early += len(early.ballots) < len(full.ballots)
    assert stopped_early > 200


def test_a_leader_that_can_still_be_tied_is_not_elected():
    ballots = [completion_of(str(i), "a") for i in range(3)]
    assert not _is_decided(ballots[:2], 4) and _is_decided(ballots, 4)
    assert not _is_decided([], 1)


def test_the_vote_does_not_depend_on_order_and_takes_white_space_as_nothing():
    rng = random.Random(2)
    for _ in range(200):
        ballots = random_ballots(rng, 7)
        shuffled = ballots[:]
        rng.shuffle(shuffled)
        assert count_votes(ballots).answer.text == count_votes(shuffled).answer.text
    spaced = [completion_of("0", "a  b"), completion_of("1", " a b\n"), completion_of("2", "c", -0.1)]
    vote = count_votes(spaced)
    assert vote.answer.text.split() == ["a", "b"] and vote.share == pytest.approx(2 / 3)
