"""Requests about pairs with retrieved documents (RAT): the check's question is the one that is asked, not the pair's."""

from __future__ import annotations

from typing import Any

from genai_core.augmentation.call_prompts import asked_arguments
from genai_core.augmentation.pydocs_pairs import pydocs_pairs
from genai_core.augmentation.retrieval_prompts import asked_pairs, question_of, training_pairs
from genai_core.config.data import PydocsPairs
from genai_core.config.retrieval import Rat
from genai_core.data.bm25 import Bm25Index
from genai_core.data.documents import Document, Pair
from genai_core.feedback.verify import Verifier
from genai_core.generation.driver import drive
from genai_core.generation.types import Completion, Request
from genai_core.recursion.synthesis.requests import can_be_varied, invent_requests, write_requests
from genai_core.recursion.synthesis.vary import vary

OBJECTS: dict[str, Any] = {
    "textwrap.shorten_text": [["text", "POSITIONAL_OR_KEYWORD", False], ["width", "POSITIONAL_OR_KEYWORD", False]],
    "textwrap.indent_lines": [["text", "POSITIONAL_OR_KEYWORD", False], ["prefix", "POSITIONAL_OR_KEYWORD", False]],
}
TEXTS = {
    "textwrap.shorten_text": "Collapse and truncate the given text to fit in the given width.",
    "textwrap.indent_lines": "Adds the given prefix to the beginning of every line of the text.",
}
SIGNATURES = {
    "textwrap.shorten_text": "textwrap.shorten_text(text, width)",
    "textwrap.indent_lines": "textwrap.indent_lines(text, prefix)",
}
DOCUMENTS = [
    Document(
        name,
        "textwrap",
        "",
        text,
        meta={"object": name, "kind": "function", "summary": text, "signature": SIGNATURES[name]},
    )
    for name, text in TEXTS.items()
]
INDEX = Bm25Index({name: f"{SIGNATURES[name]}\n{TEXTS[name]} What {name} cuts is lost." for name in TEXTS})
ONE_RIGHT = Rat(documents=1, oracle_share=1.0, retrieved_share=0.0)


def pool() -> list[Pair]:
    """Return pairs with the right document before a question that is asked by its summary."""
    bare = pydocs_pairs(DOCUMENTS, PydocsPairs(calls_per_object=2, names=False), 0, OBJECTS, documented=False)
    pairs = training_pairs(bare, INDEX, ONE_RIGHT, seed=0)
    assert len(pairs) == 4 and all(can_be_varied(pair) and pair.check["question"] != pair.prompt for pair in pairs)
    return pairs


def asked_again(pair: Pair, index: Bm25Index) -> str:
    """Return the prompt of a pair's bare question with the document that the index finds now."""
    return asked_pairs([pair], index, 1)[0].prompt


def test_a_request_is_its_question_with_the_document() -> None:
    pairs = pool()
    asked = write_requests(pairs, 3, 1, OBJECTS, seed=0)
    assert len(asked) == 12
    for number, request in enumerate(asked):
        own = pairs[number // 3]
        assert asked_arguments(request.prompt) != asked_arguments(own.prompt), "other values than the pair's"
        assert asked_arguments(question_of(request).prompt) == asked_arguments(request.prompt)
        assert asked_again(request, INDEX) == request.prompt
    changed = INDEX.updated(
        {"textwrap.shorten_text": INDEX.texts["textwrap.shorten_text"].replace("is lost", "is gone")}
    )
    found = asked_again(asked[0], changed)
    assert "is gone" in found and asked_arguments(found) == asked_arguments(asked[0].prompt)


def test_an_invented_name_is_the_questions_too() -> None:
    asked, invented = invent_requests(pool(), OBJECTS, seed=0)
    assert set(invented) <= {"textwrap.shorten_lines", "textwrap.indent_text"} and invented
    for request in asked:
        question = question_of(request).prompt
        assert asked_arguments(question) == asked_arguments(request.prompt) and request.prompt.endswith(question)
        assert "shorten_text" not in request.prompt and "indent_lines" not in request.prompt


def test_a_model_that_answers_right_gives_pairs_of_what_was_asked() -> None:
    asked = write_requests(pool(), 2, 1, OBJECTS, seed=0)
    gold = {pair.pair_id: pair.completion for pair in asked}

    def complete(requests: list[Request]) -> list[Completion]:
        return [Completion(one.row_id, gold[one.row_id], (1,), 0.0, "stop", 9) for one in requests]

    [samples] = drive([vary(asked, 1, OBJECTS, seed=0)], complete)
    for request, sample in zip(asked, samples, strict=True):
        assert sample.pair is not None, sample.reason
        assert sample.pair.prompt == request.prompt
        assert Verifier(OBJECTS).judge(sample.pair, request.completion, use_gold=True).score == 1.0
