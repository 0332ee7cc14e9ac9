"""A row that is not what its builder reads is told by file, row and field, with what to do, before any stage runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from genai_core.config.data import ConversationPairs, FieldPairs, QuotePairs, SymbolPairs
from genai_core.config.load import validate
from genai_core.data.pair_rows import check_pair_rows
from genai_core.data.sources.jsonl import read
from genai_core.errors import DataError

ROWS, BAD = 60, 6
"""Rows of a small table, of which none is skipped; the one that does not fit, from 0."""

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
FIELDS: dict[str, Any] = {"kind": "fields", "prompt_field": "q", "completion_field": "a", "context_field": "c"}
TALKS = {"kind": "conversations"}
SYMBOLS = {"kind": "symbols", "dataset_field": "set"}
QUOTES = {"kind": "quotes"}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path_factory.mktemp("home")))


def row(number: int) -> dict[str, Any]:
    """Return a row that fits every builder."""
    return {
        "text": f"Row {number} says something of its own.",
        "q": f"What is {number}?",
        "a": number,
        "c": None if number % 2 else "seen",
        "messages": TURNS,
        "label": f"class {number % 3}",
        "set": "one",
    }


def table(path: Path, **wrong: Any) -> list[dict[str, Any]]:
    """Write rows as JSON lines; one of them has other values."""
    rows = [row(number) | (wrong if number == BAD else {}) for number in range(ROWS)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return rows


def check(source: dict[str, Any], pairs: dict[str, Any], **data: Any) -> None:
    """Resolve a recipe's sources: what every flow does before it starts a stage."""
    from tasks.sources import resolve_sources

    resolve_sources(validate({"name": "x", "data": {"source": source, "pairs": pairs, **data}}, "x.yaml"))


CASES = {
    "a text that is a number": (QUOTES, {"text": 5}, "field 'text' holds a number, expected a string"),
    "a text inside an object": (
        QUOTES,
        {"text": {"en": "x"}},
        "holds an object, expected a string; reach into it: text.en",
    ),
    "a prompt that is a list": (
        FIELDS,
        {"q": ["x"]},
        "field 'q' holds a list, expected text or a number; reach into it: q.0",
    ),
    "an answer that is an object": (FIELDS, {"a": {"en": "x"}}, "field 'a' holds an object.*reach into it: a.en"),
    "a context that is a list": (FIELDS, {"c": [1, 2]}, "field 'c' holds a list"),
    "a conversation that is a text": (
        TALKS,
        {"messages": "Why?"},
        r"field 'messages' holds text, expected a list of \{role",
    ),
    "messages without a role": (
        TALKS,
        {"messages": [{"content": "Why?"}]},
        "field 'messages' holds a list of something else",
    ),
    "a conversation that is an object": (TALKS, {"messages": TURNS[0]}, "field 'messages' holds an object"),
    "a class that is a list": (SYMBOLS, {"label": ["x", "y"]}, "field 'label' holds a list.*reach into it: label.0"),
    "a dataset that is an object": (
        SYMBOLS,
        {"set": {"name": "x"}},
        "field 'set' holds an object.*reach into it: set.name",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_of_a_small_table_the_first_row_that_does_not_fit_is_told(tmp_path: Path, name: str) -> None:
    pairs, wrong, complaint = CASES[name]
    path = tmp_path / "rows.jsonl"
    source = {"kind": "jsonl", "path": str(path)}
    table(path)
    check(source, pairs)
    table(path, **wrong)
    with pytest.raises(DataError) as told:
        check(source, pairs)
    words = str(told.value)
    assert re.search(rf"\n  rows\.jsonl:{BAD + 1}: .*{complaint}", words), words
    assert f"1 of {ROWS} rows" in words
    assert words.endswith("Mend or remove these rows, or raise data.bad_row_share.")
    assert told.value.exit_code == 2
    table(path, **wrong)
    others = [one for one in (FIELDS, TALKS, SYMBOLS) if one is not pairs]
    for other in others if "text" not in wrong else []:
        check(source, other)  # what nobody reads may hold anything


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_typed_tables_are_looked_through_too(tmp_path: Path, kind: str) -> None:
    """A column of lists is wrong in every row; one of texts with a hole in it is not."""
    rows = [{**row(number), "a": [f"{number}"], "c": None} for number in range(ROWS)]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        place = tmp_path / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows), place)
    else:
        datasets = pytest.importorskip("datasets")
        place = tmp_path / "rows"
        datasets.Dataset.from_list(rows).save_to_disk(str(place))
    source = {"kind": kind, "path": str(place)}
    check(source, TALKS)
    with pytest.raises(DataError, match=rf"{ROWS} of {ROWS} rows.*\n  {place.name}:1: field 'a' holds a list.*a\.0"):
        check(source, FIELDS)
    check(source, {**FIELDS, "completion_field": "a.0"})


def test_a_csv_row_is_told_by_its_line(tmp_path: Path) -> None:
    lines = ["text,q,a", *(f"Row {number} is here.,Q{number},A{number}" for number in range(ROWS))]
    lines[BAD + 1] = 'one "column" only'
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    pairs = {**FIELDS, "context_field": ""}
    with pytest.raises(
        DataError, match=rf"\n  rows\.csv:{BAD + 2}: 1 columns, expected 3 as in the header\nMend or remove"
    ):
        check({"kind": "csv", "path": str(tmp_path / "rows.csv")}, pairs)
    with pytest.raises(DataError, match=r"no field 'answer'.*\(there are: text, q, a\)\. Correct data\.pairs"):
        lines[BAD + 1] = "x,y,z"
        (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
        check({"kind": "csv", "path": str(tmp_path / "rows.csv")}, {**pairs, "completion_field": "answer"})


def test_labels_of_a_concept_are_looked_through(tmp_path: Path) -> None:
    from tasks.erasure import resolve_erasure

    path = tmp_path / "labels.jsonl"
    erasure = {"concept": {"kind": "labelled", "path": str(path), "label_field": "label"}}
    recipe = validate({"name": "x", "erasure": erasure}, "x.yaml")
    table(path)
    assert resolve_erasure(recipe)["labelled"].digest
    table(path, label={"name": "x"})
    with pytest.raises(DataError, match=rf"labels\.jsonl:{BAD + 1}: field 'label' holds an object.*label\.name"):
        resolve_erasure(recipe)


def test_few_of_many_give_no_pair_and_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [row(number) for number in range(400)]
    for number in (3, 70, 150):
        rows[number]["a"] = ["x"]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    source = {"kind": "jsonl", "path": str(path)}
    check(source, FIELDS)
    recipe = validate({"name": "x", "data": {"source": source, "pairs": FIELDS}}, "x.yaml")
    found = check_pair_rows(read(recipe.data.source, path, 0.01).documents, recipe.data.pairs, 0.01)
    assert (found.rows, found.skipped) == (400, 3)
    assert [one.split(": ")[0] for one in found.first_skipped] == [f"rows.jsonl:{at + 1}" for at in (3, 70, 150)]
    with pytest.raises(DataError, match=r"3 of 400 rows \(0\.8 %\).*at most 0\.5 % are skipped"):
        check(source, FIELDS, bad_row_share=0.005)


def test_what_is_left_out_is_no_fault() -> None:
    """Empty, null and missing values give no pair, and nobody is stopped by them."""
    from genai_core.data.documents import Document

    empty: list[dict[str, Any]] = [{}, {"q": "", "a": None}, {"q": "x", "a": []}, {"messages": []}, {"messages": None}]
    documents = [Document(f"t:{at}", "g", "", "text", (), {"fields": one}) for at, one in enumerate(empty, start=1)]
    for pairs in (FieldPairs.model_validate(FIELDS), ConversationPairs(), SymbolPairs(), QuotePairs()):
        assert check_pair_rows(documents, pairs, 0.0).skipped == 0
    plain = [Document("a.txt", "g", "", "a file of text is no row")]
    assert check_pair_rows(plain, FieldPairs.model_validate(FIELDS), 0.0).skipped == 0
