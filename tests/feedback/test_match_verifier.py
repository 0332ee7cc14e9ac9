"""A free answer: well-formed without gold, the same as gold with it; a lost sign is another answer."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import string
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.augmentation.pairs import build_pairs
from genai_core.config.data import FieldPairs
from genai_core.data.documents import Document, Pair
from genai_core.errors import DataError
from genai_core.feedback.verifiers.match import is_same_answer, token_f1
from genai_core.feedback.verify import Verifier, is_open_book

DATA = Path(os.environ.get("GENAI_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
VERIFIER = Verifier()


def pair(prompt: str, gold: str) -> Pair:
    return Pair("answer:x", "answer", "g", "d", prompt, gold, {"kind": "match", "gold": gold})


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("Paris", "paris", True),
        (' "Paris." ', "Paris", True),
        ("The cat sat on the mat", "the cat sat  on the mat.", True),
        ("The cat sat on a mat", "The cat sat on the mat", True),
        ("A dog sat on a mat", "The cat sat on the mat", False),
        ("5", "-5", False),
        ("-5", "-5", True),
        ("1.5", "15", False),
        ("15", "1.5", False),
        ("The answer to this is 5 apples", "The answer to this is -5 apples", False),
        ("The answer to this is 5 apples", "The answer to this was 5 apples", True),
        ("It is now quite safe to go in", "It is not quite safe to go in", False),
        ("You can do this right now, ok", "You can't do this right now, ok", False),
        ("3/4", "4/3", False),
        ("50%", "50", False),
        ("$5", "5", False),
        ("...", "!!!", False),
        ("c++", "c", False),
        ("f(x)", "f(x)", True),
    ],
)
def test_same_answers(answer: str, gold: str, same: bool):
    assert is_same_answer(answer, gold) is same
    assert VERIFIER.judge(pair("Question?", gold), answer, use_gold=True).score == float(same)


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ("Yes.", True),
        ("", False),
        (None, False),
        (" \n ", False),
        ("What is the  CAPITAL of France", False),
        ("What is the capital of France? It is Paris.", True),
        ("word " * 30, False),
        ("I am sure. " * 12, False),
        ("ha ha ha ha", True),
        (" ".join(f"w{at}" for at in range(1900)), True),
        (" ".join(f"w{at}" for at in range(2100)), False),
        ("x" * 100_000, False),
        ("```" * 30_000, False),
    ],
)
def test_well_formed_without_gold(answer: str | None, valid: bool):
    asked = pair("What is the capital of France?", "Paris")
    feedback = VERIFIER.judge(asked, answer, use_gold=False)
    assert (feedback.valid, feedback.score, feedback.uses_gold) == (valid, float(valid), False)
    assert "Paris" not in feedback.text
    assert VERIFIER.judge(replace(asked, completion="", check={"kind": "match"}), answer, use_gold=False) == feedback
    assert not is_open_book(asked)


def squad_f1(prediction: str, truth: str) -> float:
    """Token F1 as the published SQuAD script computes it, articles kept."""

    def tokens(text: str) -> list[str]:
        return "".join(char for char in text.lower() if char not in set(string.punctuation)).split()

    ours, theirs = tokens(prediction), tokens(truth)
    same = sum((Counter(ours) & Counter(theirs)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_token_f1_is_squads(ours: list[str], theirs: list[str]):
    assert token_f1(ours, theirs) == pytest.approx(squad_f1(" ".join(ours), " ".join(theirs)), abs=1e-12)


def test_an_empty_answer_never_equals_a_missing_one():
    for gold in (None, "", "  "):
        with pytest.raises(DataError, match="has no right answer"):
            VERIFIER.judge(replace(pair("Q", ""), check={"kind": "match", "gold": gold}), "x", use_gold=True)
        assert (
            VERIFIER.judge(replace(pair("Q", ""), check={"kind": "match", "gold": gold}), "", use_gold=True).score
            == 0.0
        )


@pytest.mark.parametrize("name", ["gpteacher_codegen", "gpteacher_roleplay", "gpteacher_toolformer", "self_instruct"])
def test_gold_of_real_tables_is_right_and_other_rows_answers_are_not(name: str):
    folder = DATA / "instruct"
    if not folder.exists():
        pytest.skip(f"no test data in {DATA}; set GENAI_TEST_DATA")
    file = "self_instruct_seed_tasks" if name == "self_instruct" else name
    with gzip.open(folder / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(200), strict=False)]
    if name == "self_instruct":
        rows = [{"instruction": row["instruction"], **instance} for row in rows for instance in row["instances"]]
    config = FieldPairs(prompt_field="instruction", completion_field="output", context_field="input")
    pairs = build_pairs(
        [Document(f"{name}{at}", "g", "", "", (), {"fields": row}) for at, row in enumerate(rows)], config, 0, None
    )
    rng, wrong = random.Random(0), 0
    for asked in pairs:
        assert VERIFIER.judge(asked, asked.completion, use_gold=True).score == 1.0
        other = rng.choice(pairs)
        if other.completion != asked.completion:
            wrong += VERIFIER.judge(asked, other.completion, use_gold=True).score
        if numbers := re.findall(r"(?<!\S)\d+(?!\S)", asked.completion):
            changed = re.sub(rf"(?<!\S){numbers[0]}(?!\S)", f"-{numbers[0]}", asked.completion, count=1)
            assert VERIFIER.judge(asked, changed, use_gold=True).score == 0.0
    assert wrong <= 0.01 * len(pairs)
