"""Calls and names out of documentation: readable back, drawn stably, never answerable by copying."""

from __future__ import annotations

import ast
import inspect
import random
from dataclasses import replace

import pytest
from stdlib_sample import SAMPLE, documents_and_objects

from genai_core.augmentation.argument_values import kind_of_parameter, write_value
from genai_core.augmentation.call_prompts import (
    REQUESTS,
    asked_arguments,
    documented_names,
    documented_signatures,
    write_call_prompt,
)
from genai_core.augmentation.pairs import build_pairs
from genai_core.config.data import PydocsPairs
from genai_core.data.documents import Document, Pair, read_pairs, write_pairs
from genai_core.errors import DataError

DOCUMENTS, OBJECTS = documents_and_objects()


def build(documents: list[Document] = DOCUMENTS, seed: int = 0, **config: object) -> list[Pair]:
    return build_pairs(documents, PydocsPairs(**config), seed, OBJECTS)


def arguments_of(call: str) -> dict[str, str]:
    """{parameter: source text} of a canonical call; positional ones under their number."""
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    return {
        **{str(at): ast.unparse(value) for at, value in enumerate(node.args)},
        **{str(keyword.arg): ast.unparse(keyword.value) for keyword in node.keywords},
    }


def test_a_call_pair_reads_as_the_readme_says():
    pair = next(pair for pair in build() if pair.doc_id == "textwrap.shorten" and pair.task == "call")
    signature, documentation, blank, request = pair.prompt.split("\n")
    assert signature == "textwrap.shorten(text, width, **kwargs)"
    assert documentation.startswith("Collapse and truncate the given text to fit in the given width.")
    assert blank == ""
    assert "text = '" in request
    assert pair.completion.startswith("textwrap.shorten(text='")
    assert pair.check == {"kind": "python_call", "gold": pair.completion}
    assert pair.group == "textwrap"


def test_the_prompt_holds_all_that_the_answer_needs():
    calls = [pair for pair in build(calls_per_object=4) if pair.task == "call"]
    assert len({pair.prompt for pair in calls}) == len(calls) > 40
    for pair in calls:
        assert documented_names(pair.prompt) == [pair.doc_id]
        assert sorted(value for _, value in asked_arguments(pair.prompt)) == sorted(
            arguments_of(pair.completion).values()
        )
        assert len(pair.prompt.split()) < 100


def test_every_required_parameter_is_asked_and_positional_only_ones_stand_by_position():
    for pair in build(calls_per_object=4):
        if pair.task == "call":
            asked = [name for name, _ in asked_arguments(pair.prompt)]
            stored = OBJECTS[pair.doc_id] or []
            required = [name for name, kind, has_default in stored if not has_default and not kind.startswith("VAR")]
            assert set(required) <= set(asked)
            assert len(asked) <= len(required) + 2
            by_position = [name for name, kind, _ in stored if kind == "POSITIONAL_ONLY" and name in asked]
            assert sum(key.isdigit() for key in arguments_of(pair.completion)) == len(by_position)


def test_removing_a_document_leaves_the_other_pairs_unchanged():
    before = build()
    for gone in (0, 7, len(DOCUMENTS) - 1):
        left = DOCUMENTS[:gone] + DOCUMENTS[gone + 1 :]
        assert build(left) == [pair for pair in before if pair.doc_id != DOCUMENTS[gone].doc_id]
    assert build(DOCUMENTS[::-1], calls_per_object=1, names=False) == build(calls_per_object=1, names=False)[::-1]


def test_same_seed_same_pairs_and_another_seed_others(tmp_path):
    write_pairs(tmp_path / "a.parquet", build())
    write_pairs(tmp_path / "b.parquet", build())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert read_pairs(tmp_path / "a.parquet") == build()
    assert {pair.prompt for pair in build(seed=1)} != {pair.prompt for pair in build(seed=0)}


def test_more_calls_an_object_keep_the_first_ones():
    few, many = build(calls_per_object=1, names=False), build(calls_per_object=3, names=False)
    assert [pair for pair in many if pair.pair_id.endswith(":0")] == few


def test_no_value_is_the_default_or_the_parameter_itself():
    defaults = {
        (value.__module__ + "." + value.__qualname__, p.name): repr(p.default)
        for value in SAMPLE
        for p in inspect.signature(value).parameters.values()
    }
    drawn = [
        (pair.doc_id, name, value)
        for seed in range(40)
        for pair in build(seed=seed, names=False)
        for name, value in asked_arguments(pair.prompt)
    ]
    assert all(value not in (name, defaults[object_name, name]) for object_name, name, value in drawn)
    # the lists do hold such defaults: without the rule some of these draws would hit one
    assert any(value == default for *_, value in drawn for default in defaults.values())


def test_names_are_left_out_where_the_summary_does_not_point_at_one_object():
    def names(documents: list[Document]) -> set[str]:
        return {pair.doc_id for pair in build(documents) if pair.task == "name"}

    def told(document: Document, summary: str) -> Document:
        return replace(document, meta={**document.meta, "summary": summary})

    first, second = DOCUMENTS[2], DOCUMENTS[4]
    other = [told(first, "Tell two things apart."), told(second, "Put two things together.")]
    assert names(other) == {first.doc_id, second.doc_id}
    assert names([told(first, "Tell two things apart."), told(second, "Tell  two things apart")]) == set()
    assert names([told(first, "Filter the names of a list."), other[1]]) == {second.doc_id}
    assert names([told(first, "Too short."), other[1]]) == {second.doc_id}
    assert {pair.task for pair in build(names=False)} == {"call"}


def test_a_name_pair_reads_as_a_question():
    found = next(pair for pair in build() if pair.task == "name" and pair.doc_id == "textwrap.shorten")
    assert found.prompt == (
        "Which object of Python's standard library does this: Collapse and truncate the given text to fit in the given "
        "width?"
    )
    assert found.check == {"kind": "python_name", "gold": "textwrap.shorten"} and found.completion == "textwrap.shorten"


def test_what_cannot_be_called_by_name_gives_no_call():
    objects = {
        "m.unknown": None,
        "m.nothing": [],
        "m.stars": [["args", "VAR_POSITIONAL", False]],
        "m.C.method": [["self", "POSITIONAL_OR_KEYWORD", False], ["x", "POSITIONAL_OR_KEYWORD", False]],
        "m.many": [[f"a{at}", "POSITIONAL_OR_KEYWORD", False] for at in range(5)],
        "m.good": [["x", "POSITIONAL_OR_KEYWORD", False]],
        "m.module": [["x", "POSITIONAL_OR_KEYWORD", False]],
    }
    documents = [
        Document(
            name, "m", name, "Does a thing.", (), {"object": name, "kind": "module" if "mod" in name else "function"}
        )
        for name in [*objects, "m.absent"]
    ]
    pairs = build_pairs(documents, PydocsPairs(names=False), 0, objects)
    assert {pair.doc_id for pair in pairs} == {"m.good"}


def test_optional_positional_only_parameters_are_asked_in_order_only():
    objects = {"m.f": [["a", "POSITIONAL_ONLY", True], ["b", "POSITIONAL_ONLY", True]]}
    document = Document("m.f", "m", "m.f", "Does a thing.", (), {"object": "m.f", "kind": "function"})
    for seed in range(10):
        for pair in build_pairs([document], PydocsPairs(names=False), seed, objects):
            assert [name for name, _ in asked_arguments(pair.prompt)] == ["a"]


def test_long_or_missing_signatures_are_shown_short():
    stored = [
        ["a", "POSITIONAL_ONLY", False],
        ["b", "POSITIONAL_OR_KEYWORD", True],
        ["c", "KEYWORD_ONLY", False],
        ["more", "VAR_KEYWORD", False],
    ]
    for signature in ("", "(a, /, b='" + "x" * 200 + "', *, c, **more)"):
        meta = {"object": "m.f", "kind": "function", "signature": signature}
        pairs = build_pairs(
            [Document("m.f", "m", "m.f", "Text.", (), meta)], PydocsPairs(names=False), 0, {"m.f": stored}
        )
        assert documented_signatures(pairs[0].prompt) == ["m.f(a, /, b=..., *, c, **more)"]


def test_no_pair_at_all_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match=r"none of the 1 documents .* Raise source.max_modules"):
        build_pairs([Document("d", "g", "t", "text", (), {"kind": "topic"})], PydocsPairs(), 0, {})
    with pytest.raises(DataError, match="needs the objects"):
        build_pairs(DOCUMENTS, PydocsPairs(), 0, None)


@pytest.mark.parametrize("request_text", REQUESTS)
def test_a_prompt_is_read_back_whatever_the_wording(request_text: str):
    values = ["'blue sky'", "-1", "2.5", "[1, 2, 3]", "['a', 'b']", "('localhost', 80)", "None", "b'abc'", "a.b", "','"]
    arguments = [(f"p{at}", value) for at, value in enumerate(values)]
    for count in (1, 2, len(arguments)):
        prompt = write_call_prompt("m.f(x = 3)", "Text with y = 4.", arguments[:count], request_text)
        assert asked_arguments(prompt) == arguments[:count]
        assert documented_names(prompt) == ["m.f"]


def test_prompts_of_other_makers_hold_nothing_to_read():
    assert asked_arguments("What is the weather?") == [] == documented_names("f(x)")
    assert documented_names("a.b(x)\ntext\n\nc(y)\ntext\n\nnot a (signature)\n\nDo it.") == ["a.b", "c"]


@pytest.mark.parametrize(
    ("name", "annotation", "kind"),
    [
        ("width", "", "int"),
        ("timeout", "", "float"),
        ("encoding", "str", "encoding"),
        ("whatever", "str", "text"),
        ("width", "float", "float"),
        ("names", "list[str]", "list"),
        ("follow_symlinks", "", "bool"),
        ("is_open", "", "bool"),
        ("max_width", "", "int"),
        ("qqq", "", "number_or_text"),
        ("self_", "Optional[int]", "number_or_text"),
    ],
)
def test_values_suit_the_parameter(name: str, annotation: str, kind: str):
    assert kind_of_parameter(name, annotation) == kind
    for seed in range(5):
        ast.parse(write_value(name, annotation, frozenset(), random.Random(seed)), mode="eval")


def test_an_avoided_value_is_never_written():
    written = {write_value("strict", "", frozenset({"True"}), random.Random(seed)) for seed in range(20)}
    assert written == {"False"}
