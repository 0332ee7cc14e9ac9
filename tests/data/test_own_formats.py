"""Data as people have it: packed, with other encodings and delimiters, one long file, one giant line, nested fields."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from genai_core.config.base import canonical
from genai_core.config.data import CsvSource, JsonlSource, MarkdownSource, QualityConfig, TextSource
from genai_core.data.field_roles import find_roles
from genai_core.data.formats import find_format, with_fields
from genai_core.data.quality import find_fault
from genai_core.data.sources.registry import read_documents
from genai_core.errors import DataError

SENTENCES = [f"Sentence number {n} of this book is about ships." for n in range(400)]


def texts(source: Any) -> list[str]:
    return [document.text for document in read_documents(source, None, 0.01).documents]


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_packed_files_are_read_as_they_are(tmp_path: Path, ending: str, pack: Any) -> None:
    (tmp_path / f"a.txt{ending}").write_bytes(pack(b"plain words"))
    (tmp_path / f"t.tsv{ending}").write_bytes(pack(b"text\tn\nwords\t1\n"))
    (tmp_path / f"r.ndjson{ending}").write_bytes(pack(b'{"text": "words"}\n'))
    assert texts(TextSource(path=str(tmp_path))) == ["plain words"]
    assert texts(CsvSource(path=str(tmp_path), delimiter="\t")) == ["words"]
    assert texts(JsonlSource(path=str(tmp_path))) == ["words"]
    (tmp_path / f"a.txt{ending}").write_bytes(pack(b"words " * 9000)[:30])
    with pytest.raises(DataError, match="is not a whole"):
        texts(TextSource(path=str(tmp_path / f"a.txt{ending}")))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"%PDF-1.7 ...", "a PDF. Turn it into text"),
        (b"PK\x03\x04....", "zip archive"),
        (gzip.compress(b"x"), "Let its name end in .gz"),
        (b"\x28\xb5\x2f\xfd..", "unzstd"),
    ],
)
def test_what_is_no_text_is_named_with_a_remedy(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "a.txt").write_bytes(head)
    with pytest.raises(DataError, match=words):
        texts(TextSource(path=str(tmp_path)))


def test_a_book_gives_passages_that_lose_no_word(tmp_path: Path) -> None:
    paragraphs = [" ".join(SENTENCES[start : start + 4]) for start in range(0, 400, 4)]
    (tmp_path / "book.txt").write_text("\r\n\r\n".join(paragraphs))
    (tmp_path / "line.txt").write_text(" ".join(SENTENCES))
    for name in ("book.txt", "line.txt"):
        found = texts(TextSource(path=str(tmp_path / name), document="passage", passage_words=100))
        assert len(found) > 20
        assert " ".join(" ".join(found).split()) == " ".join(SENTENCES)
        assert all(text.startswith("Sentence") and text.endswith("ships.") for text in found)
        assert max(len(text.split()) for text in found) < 300
    (tmp_path / "zh.txt").write_text("我们去看海。" * 2000)
    chinese = texts(TextSource(path=str(tmp_path / "zh.txt"), document="passage", passage_words=100))
    assert "".join(chinese) == "我们去看海。" * 2000
    assert all(text.endswith("。") for text in chinese)
    assert not any(find_fault(text, QualityConfig()) for text in chinese)


def test_quality_still_drops_what_it_is_for() -> None:
    quality = QualityConfig()
    assert find_fault("x" * 300 + " some more words in a row", quality) == "long_word"
    assert find_fault("海 海", quality) == "too_short"
    assert find_fault("我们今天一起去海边看日出。", quality) == ""


def test_another_encoding_is_named_and_then_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Grüße aus Köln".encode("cp1252"))
    with pytest.raises(DataError, match=r"data\.source\.encoding: cp1252"):
        texts(TextSource(path=str(tmp_path)))
    assert texts(TextSource(path=str(tmp_path), encoding="cp1252")) == ["Grüße aus Köln"]
    (tmp_path / "a.md").write_bytes("# Grüße\nKöln".encode("latin-1"))
    assert texts(MarkdownSource(path=str(tmp_path), encoding="latin-1")) == ["# Grüße\nKöln"]
    with pytest.raises(ValueError, match="no encoding that Python knows"):
        TextSource(path="x", encoding="utf-9")


def test_a_wrong_delimiter_names_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id;text\n1;some words\n")
    with pytest.raises(DataError, match=r'Set data\.source\.delimiter: ";"'):
        texts(CsvSource(path=str(tmp_path)))
    assert texts(CsvSource(path=str(tmp_path), delimiter=";")) == ["some words"]


def test_fields_are_joined_and_reached_into(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add", "input": "1 2", "cases": [{"out": "3"}]},
        {"instruction": "Say hello", "input": "", "cases": [{"out": "hello"}]},
        {"instruction": "Stop", "cases": []},
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows, indent=1))  # one list, as many instruction sets come
    source = JsonlSource(path=str(tmp_path / "r.json"), text_field=["instruction", "input", "cases.0.out"])
    assert texts(source) == ["Add\n\n1 2\n\n3", "Say hello\n\nhello", "Stop"]
    with pytest.raises(ValueError, match="neither a field's name nor a list of names"):
        JsonlSource(path="x", text_field=3)
    with pytest.raises(DataError, match=r"no field 'outptu'; did you mean 'out'|no field"):
        texts(source.model_copy(update={"text_field": ("outptu",)}))
    with pytest.raises(DataError, match=r"holds a list, expected a string; reach into it: cases\.0\.out"):
        texts(JsonlSource(path=str(tmp_path / "r.json"), text_field="cases"))
    chat = [{"m": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}]
    (tmp_path / "c.json").write_text(json.dumps(chat))
    assert texts(JsonlSource(path=str(tmp_path / "c.json"), text_field="m")) == ["Hi\n\nHello"]


def test_new_keys_leave_old_keys_as_they_were() -> None:
    assert set(canonical(JsonlSource(path="x"))) == {"kind", "text_field", "group_field"}
    assert set(canonical(TextSource(path="x"))) == {"kind", "document"}
    assert set(canonical(CsvSource(path="x"))) == {"kind", "text_field", "group_field"}


def test_formats_are_found_by_name_and_by_content(tmp_path: Path) -> None:
    files = {
        "a.csv": (b"id;name;text\n1;x;words\n2;y;more\n", "csv"),
        "b": (b'{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        "c.json": (b'[\n{"text": "a"}]', "jsonl"),
        "d.log": (b"Just a line, of prose that goes on.\nAnd another, longer line of it.\n", "text"),
        "e.dat": (b"id\ttext\n1\twords\n", "csv"),
    }
    for name, (content, kind) in files.items():
        (tmp_path / name).write_bytes(content)
        assert find_format(str(tmp_path / name)).source.kind == kind, name
    assert find_format(str(tmp_path / "a.csv")).source.delimiter == ";"
    assert find_format(str(tmp_path / "e.dat")).source.delimiter == "\t"
    (tmp_path / "w.txt").write_bytes("Köln\r\n".encode("cp1252"))
    assert find_format(str(tmp_path / "w.txt")).source.encoding == "cp1252"
    with pytest.raises(DataError, match="HTML"):
        (tmp_path / "p.html").write_text("<html><body><p>x</p></body></html>")
        find_format(str(tmp_path / "p.html"))
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "x.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"1 \.pdf"):
        find_format(str(folder))
    (folder / "x.md").write_text("# Title\nwords")
    assert find_format(str(folder)).source.kind == "markdown"


ROLES = {
    "apibench/huggingface_api.jsonl.gz": ("description", "api_call", ""),
    "instruct/gpteacher_roleplay.jsonl.gz": ("instruction", "output", "input"),
    "instruct/self_instruct_seed_tasks.jsonl.gz": ("instruction", "instances.0.output", "instances.0.input"),
    "classification/movie_reviews.jsonl.gz": ("text", "label", ""),
    "classification/banking77.jsonl.gz": ("text", "label", ""),
    "retrieval/xquad_en.jsonl.gz": ("question", "answers.0.text", "context"),
    "verifiable/gsm8k_train.jsonl.gz": ("question", "answer", ""),
    "links/enwiki_sample.jsonl.gz": ("", "", ""),
    "pretrain/state_of_the_union.jsonl.gz": ("", "", ""),
}


@pytest.mark.parametrize("name", ROLES)
def test_the_roles_of_real_fields(test_data: Path, name: str) -> None:
    source = with_fields(find_format(str(test_data / name)).source, text_field=())
    rows = [document.meta["fields"] for document in read_documents(source, None, 0.01).documents]
    roles = find_roles(rows)
    assert roles is not None
    assert (roles.prompt, roles.answer, roles.context) == ROLES[name]
    # the proposed fields are readable: no row is lost
    assert len(texts(with_fields(source, text_field=roles.text))) == len(rows)
