"""Questions with retrieved documents: four outcomes that sum to 1, tasks of their own, and none that a loop may learn from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genai_core.augmentation.retrieval_prompts import evaluation_pairs, training_pairs
from genai_core.config.retrieval import Rat
from genai_core.data.bm25 import Bm25Index
from genai_core.data.documents import Pair
from genai_core.evaluation.benchmarks.calls import judged_case
from genai_core.evaluation.benchmarks.names import is_closed_book
from genai_core.evaluation.runner import figures_of, intervals_of
from genai_core.evaluation.shots import with_shots
from genai_core.feedback.verify import Verifier, is_open_book

OBJECTS = {
    "textwrap.shorten": [["text", "POSITIONAL_OR_KEYWORD", False], ["width", "POSITIONAL_OR_KEYWORD", False]],
    "textwrap.dedent": [["text", "POSITIONAL_OR_KEYWORD", False]],
}
INDEX = Bm25Index(
    {"textwrap.shorten": "textwrap.shorten(text, width)\nCollapse text.", "textwrap.dedent": "textwrap.dedent(text)"}
)
GOLD = "textwrap.shorten(text='a', width=5)"
QUESTION = Pair(
    "p", "call", "g", "textwrap.shorten", "Collapse text.\n\nCall it with text = 'a' and width = 5.", GOLD,
    {"kind": "python_call", "gold": GOLD},
)  # fmt: skip
ANSWERS = {
    "right": GOLD,
    "error": "textwrap.dedent(text='a')",
    "hallucinated": "textwrap.collapse(text='a', width=5)",
    "unparsable": "textwrap.shorten(text='a', width=",
}


@pytest.mark.parametrize("outcome", ANSWERS)
def test_an_answer_is_one_of_four(outcome: str) -> None:
    for pair in evaluation_pairs([QUESTION], INDEX, Rat(documents=1), seed=0):
        case = judged_case(pair, ANSWERS[outcome], Verifier(OBJECTS))
        assert [case[name] for name in ANSWERS] == [float(name == outcome) for name in ANSWERS]
    assert set(judged_case(QUESTION, GOLD, Verifier(OBJECTS))) == {"suite", "case_id", "valid", "right"}


def test_each_way_of_asking_has_its_own_figures_with_intervals() -> None:
    asked = evaluation_pairs([QUESTION], INDEX, Rat(documents=1), seed=0)
    cases = [judged_case(pair, GOLD, Verifier(OBJECTS)) for pair in asked]
    figures, intervals = figures_of(cases), intervals_of(cases, draws=10, seed=0)
    assert figures["call/oracle_shown"] == figures["call-oracle/oracle_shown"] == 1.0
    assert figures["call-alone/oracle_shown"] == 0.0 and figures["call-alone/hallucinated"] == 0.0
    assert {"call/hallucinated", "call-alone/unparsable", "call-oracle/error"} <= set(intervals)
    assert [is_closed_book(pair.task) for pair in asked] == [False, True, False]
    solved = [replace(QUESTION, pair_id=f"s{number}") for number in range(3)]
    assert len(with_shots(asked, solved, 2, seed=0)) == 3  # examples are of the task without the way


def test_a_loop_learns_only_where_the_one_shown_document_is_the_right_one() -> None:
    assert is_open_book(QUESTION)
    for pair in training_pairs([replace(QUESTION, pair_id=f"p{n}") for n in range(60)], INDEX, Rat(documents=1), 0):
        alone = [one["doc_id"] for one in pair.check["retrieved"]] == ["textwrap.shorten"]
        assert is_open_book(pair) == alone
