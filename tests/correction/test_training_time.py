"""Rejection sampling keeps verified, whole, distinct answers; a random choice of the same size is worse."""

from __future__ import annotations

from canned import ORACLE, Canned, Verdicts, chance, completion_of, pair_of

from genai_core.correction.candidates import Candidate, ask_candidates
from genai_core.correction.training_time.rejection_sampling import corrected_pairs, select_random, select_verified
from genai_core.feedback.types import Feedback
from genai_core.generation.driver import drive


def candidate(text: str, score: float = 1.0, logp: float = -1.0, reason: str = "stop", valid: bool = True) -> Candidate:
    return Candidate(completion_of("p", text, logp, reason=reason), Feedback(score, valid=valid))


def texts(candidates) -> list[str]:
    return [candidate.text for candidate in candidates]


def test_only_verified_whole_answers_are_kept():
    answers = [
        candidate("refused", score=0.0),
        candidate("malformed", valid=False),
        candidate("cut off", reason="length"),
        candidate("  "),
        candidate("good"),
    ]
    assert texts(select_verified(answers, 9)) == ["good"]
    assert select_verified(answers[:4], 9) == []


def test_the_most_frequent_then_the_likeliest_comes_first_and_each_once():
    answers = [candidate("a", logp=-1), candidate("b ", logp=-4), candidate("b", logp=-3), candidate("c", logp=-2)]
    assert texts(select_verified(answers, 9)) == ["b", "a", "c"]
    assert select_verified(answers, 1)[0].completion.logp == -3
    assert texts(select_verified(answers[::-1], 2)) == ["b", "a"]


def test_pairs_carry_the_check_and_the_same_row_is_written_once():
    pair = pair_of("p")
    rows = corrected_pairs([pair, pair_of("q"), pair], [[candidate(" one "), candidate("two")], [], [candidate("one")]])
    assert [(row.pair_id, row.completion, row.origin) for row in rows] == [
        ("p/corrected-0", "one", "corrected"),
        ("p/corrected-1", "two", "corrected"),
    ]
    assert rows[0].check == pair.check and rows[0].prompt == pair.prompt


def test_selection_by_a_verifier_beats_the_matched_random_control_and_a_blind_one_does_not():
    pairs = [pair_of(f"p{i}") for i in range(1000)]
    complete = Canned(
        lambda request: "right" if chance(request.row_id) < 0.3 else f"wrong {chance(request.row_id):.1f}"
    )
    noisy = Verdicts(lambda pair, answer: float((answer == "right") != (chance(pair.pair_id, answer) < 0.1)))
    shares = {}
    for name, verifier in {"noisy": noisy, "blind": Verdicts(lambda p, a: float(chance(p.pair_id, a) < 0.5))}.items():
        asked = drive([ask_candidates(pair, 4, verifier) for pair in pairs], complete)
        chosen = [select_verified(answers) for answers in asked]
        control = [
            select_random(answers, len(kept), f"0/{pair.pair_id}")
            for pair, answers, kept in zip(pairs, asked, chosen, strict=True)
        ]
        assert [len(kept) for kept in chosen] == [len(kept) for kept in control]
        shares[name] = [
            sum(answer.text == "right" for kept in part for answer in kept) / sum(map(len, part))
            for part in (chosen, control)
        ]
    assert shares["noisy"][0] > shares["noisy"][1] + 0.3
    assert shares["blind"][0] < shares["blind"][1] + 0.2


def test_a_model_that_is_always_wrong_gives_nothing_to_learn_from():
    (answers,) = drive([ask_candidates(pair_of("p"), 8, ORACLE)], Canned(lambda request: "wrong"))
    assert select_verified(answers) == []
