"""Answers without a model score as they should: valid perhaps, right (almost) never."""

from __future__ import annotations

from call_samples import FILL, OBJECTS, SHORTEN

from genai_core.data.documents import Pair, write_pairs
from genai_core.feedback.baselines import fit_baselines, make_baselines
from genai_core.feedback.verify import Verifier


def test_on_the_real_library(stdlib):
    baselines = make_baselines(stdlib.pairs)
    calls = [pair for pair in stdlib.pairs if pair.task == "call"]
    figures = {}
    for name, answer in baselines.items():
        answers = [answer(pair) for pair in calls]
        blind = stdlib.verifier.check_all(calls, answers, use_gold=False)
        seen = stdlib.verifier.check_all(calls, answers, use_gold=True)
        figures[name] = [sum(f.valid for f in blind), sum(f.score for f in blind), sum(f.score for f in seen)]
    assert figures["constant"] == [len(calls), 0.0, 0.0]
    assert figures["copied"][1:] == [0.0, 0.0] and 0.3 * len(calls) < figures["copied"][0] < 0.9 * len(calls)
    # the majority is one of these very answers, so it is right where it came from and nowhere else
    assert figures["majority"][0] == len(calls) and figures["majority"][2] == 1.0


def test_the_copied_signature_is_valid_only_if_it_parses_and_binds():
    verifier, copied = Verifier(OBJECTS), make_baselines([])["copied"]
    assert copied(SHORTEN) == "textwrap.shorten(text, width, **kwargs)"
    assert not verifier.judge(SHORTEN, copied(SHORTEN), use_gold=True).valid
    assert copied(FILL) == "textwrap.fill(text, width=70, *, indent='')"
    assert not verifier.judge(FILL, copied(FILL), use_gold=True).valid


def test_majority_and_constants_by_task(tmp_path):
    def pair(number: int, task: str, kind: str, prompt: str, completion: str) -> Pair:
        return Pair(f"{task}{number}", task, "g", "d", prompt, completion, {"kind": kind, "gold": completion})

    train = [
        pair(1, "answer", "match", "Q1", "No."),
        pair(2, "answer", "match", "Q2", "Yes."),
        pair(3, "answer", "match", "Q3", "Yes."),
        pair(4, "name", "python_name", "Which?", "b.b"),
        pair(5, "name", "python_name", "Which?", "a.a"),
    ]
    write_pairs(tmp_path / "pairs" / "train.parquet", train)
    baselines = fit_baselines(tmp_path)
    assert list(baselines) == ["constant", "copied", "majority"]
    assert [baselines["majority"](each) for each in train] == ["Yes.", "Yes.", "Yes.", "a.a", "a.a"]
    quote = pair(6, "quote", "quote", "First one here. Second.\n\nThe one that begins with: Sec", "Second.")
    assert [answer(quote) for answer in baselines.values()] == ["First one here.", "First one here. Second.", ""]
    assert Verifier().judge(quote, baselines["constant"](quote), use_gold=False).valid
    assert baselines["constant"](train[3]) == "len"
    assert baselines["copied"](train[0]) == "Q1"
    assert not Verifier().judge(train[0], baselines["copied"](train[0]), use_gold=False).valid
