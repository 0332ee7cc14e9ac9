"""Every error that own-data.md explains is made, and says what the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT
from example_data import prose

from genai_core.config.data import FieldPairs, QuotePairs, TextSource
from genai_core.config.lifecycle import GateConfig
from genai_core.config.load import validate
from genai_core.errors import UserError

PAGE = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?:gate: )?`([^`]+)`[^|]*\|", PAGE.partition("## What errors mean")[2], re.MULTILINE)


def check(source: dict[str, Any], **more: Any) -> None:
    """Do what `genai recipe check` does first."""
    from tasks.sources import resolve_sources

    pairs = more.pop("pairs", {"kind": "quotes"})
    data = {"source": source, "pairs": pairs, **more.pop("data", {})}
    resolve_sources(validate({"name": "x", "data": data, **more}, "x.yaml"))


def many_files(number: int) -> None:
    Path("my-text").mkdir()
    for index in range(number):
        Path(f"my-text/{index}.txt").write_text(prose(index))


def misspelt() -> None:
    many_files(12)
    check({"kind": "text", "path": "./my-tekst"})


def other_files() -> None:
    Path("handbook").mkdir()
    Path("handbook/page.md").write_text("# Page\n")
    check({"kind": "text", "path": "./handbook"})


def latin() -> None:
    Path("notes.txt").write_bytes(b"one\ntwo\ncaf\xe9\n")
    check({"kind": "text", "path": "notes.txt"})


def binary() -> None:
    Path("notes.txt").write_bytes(b"%PDF-1.7\0\1\2")
    check({"kind": "text", "path": "notes.txt"})


def no_field() -> None:
    Path("table.csv").write_text("body,author\n" + "some words,me\n" * 20)
    check({"kind": "csv", "path": "table.csv"})


def broken_rows() -> None:
    rows = [json.dumps({"text": prose(index)}) for index in range(193)] + ["{not json"] * 7
    Path("rows.jsonl").write_text("\n".join(rows))
    check({"kind": "jsonl", "path": "rows.jsonl"})


def unfit_row() -> None:
    rows = [{"text": prose(index), "question": "Why?", "answer": "Because."} for index in range(59)]
    rows.insert(7, {**rows[0], "answer": ["Because.", "So."]})
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = {"kind": "fields", "prompt_field": "question", "completion_field": "answer"}
    check({"kind": "jsonl", "path": "rows.jsonl"}, pairs=pairs)


def too_few() -> None:
    many_files(6)
    check({"kind": "text", "path": "./my-text"})


def no_sentences() -> None:
    from genai_core.augmentation.quote_pairs import quote_pairs
    from genai_core.data.documents import Document

    documents = [Document(doc_id=str(n), group=str(n), title="", text=f"| {n} | 1.5 |") for n in range(40)]
    quote_pairs(documents, QuotePairs(), 0)


def too_long() -> None:
    from genai_core.augmentation.field_pairs import field_pairs
    from genai_core.data.documents import Document
    from genai_core.data.tokenizer import train_tokenizer
    from genai_core.data.tuning_rows import build_tuning_rows

    fields = {"fields": {"q": prose(1), "a": prose(2)}}
    document = Document(doc_id="1", group="1", title="", text=prose(1), meta=fields)
    pairs = field_pairs([document], FieldPairs(prompt_field="q", completion_field="a"))
    build_tuning_rows(pairs, [], train_tokenizer([prose(3)], 300, 64), 16, 0.0, 0)


def other_vocabulary() -> None:
    check({"kind": "text", "path": "."}, base={"kind": "folder", "path": "./my-model"})


def default_pairs() -> None:
    validate({"name": "x", "data": {"source": {"kind": "text", "path": "."}}}, "x.yaml")


def uneven_batch() -> None:
    validate({"name": "x", "finetuning": {"global_batch_tokens": 1000}}, "x.yaml")


def edited() -> None:
    from genai_core.data.resolve import require_unchanged, resolve_source

    many_files(12)
    source = TextSource(path="./my-text")
    ref = resolve_source(source)
    Path("my-text/0.txt").write_text("something else")
    require_unchanged(source, ref)


def difference(n: int, low: float, high: float) -> Any:
    from genai_core.evaluation.compare import Difference, Interval

    interval = Interval(mean=(low + high) / 2, low=low, high=high, n=n)
    return Difference("some/metric", n, 1.0, 1.0, interval)


def too_few_cases() -> None:
    from genai_core.evaluation.gates import keeps_the_domain

    raise UserError(keeps_the_domain(GateConfig(), difference(12, 0, 0), "base").reason)


def nothing_learned() -> None:
    from genai_core.evaluation.gates import learned_to_answer

    raise UserError(learned_to_answer(GateConfig(), difference(40, -0.2, 0.1), "base").reason)


MISTAKES: tuple[Callable[[], None], ...] = (
    misspelt, other_files, latin, binary, no_field, broken_rows, unfit_row, too_few, no_sentences, too_long, other_vocabulary,
    default_pairs, uneven_batch, edited, too_few_cases, nothing_learned,
)  # fmt: skip


@pytest.mark.parametrize(("row", "mistake"), zip(ROWS, MISTAKES, strict=True), ids=[one.__name__ for one in MISTAKES])
def test_the_mistake_is_told_as_the_page_has_it(
    row: str, mistake: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    with pytest.raises(UserError) as told:
        mistake()
    place = 0
    for part in row.split("..."):
        found = str(told.value).find(part.strip(), place)
        assert found >= 0, f"{part!r} is not in: {told.value}"
        place = found + len(part.strip())
