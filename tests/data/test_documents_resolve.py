"""A source's identity is its content; what cannot be read is refused before any stage runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from genai_core.config.data import (
    ConversationPairs,
    CsvSource,
    DatasetsSource,
    FieldPairs,
    JsonlSource,
    MarkdownSource,
    PydocsSource,
    QuotePairs,
    TextSource,
)
from genai_core.data.pair_rows import fields_of
from genai_core.data.resolve import require_unchanged, resolve_source
from genai_core.errors import DataError
from genai_core.storage.artifact import ArtifactKind


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GENAI_HOME", str(tmp_path_factory.mktemp("home")))


def folder_of_text(path, count=12):
    path.mkdir()
    for number in range(count):
        (path / f"{number:02}.txt").write_text(f"Text number {number} says something of its own.")
    return path


def test_the_same_content_elsewhere_is_the_same_source(tmp_path):
    first, second = folder_of_text(tmp_path / "one"), folder_of_text(tmp_path / "two")
    (second / "notes.md").write_text("not of this source")
    a, b = resolve_source(TextSource(path=str(first))), resolve_source(TextSource(path=str(second / "*.txt")))
    assert a.digest == b.digest
    assert (a.kind, a.name, a.version, a.uri) == (ArtifactKind.SOURCE, "one", a.digest[:8], str(first))


@pytest.mark.parametrize("change", ["content", "name", "added", "removed"])
def test_every_change_moves_the_digest(tmp_path, change):
    folder = folder_of_text(tmp_path / "one")
    source = TextSource(path=str(folder))
    before = resolve_source(source)
    require_unchanged(source, before)
    file = folder / "03.txt"
    match change:
        case "content":
            stat = file.stat()
            file.write_text(file.read_text().replace("something", "somethinG"))
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        case "name":
            file.rename(folder / "3.txt")
        case "added":
            (folder / "new.txt").write_text("One more text to read.")
        case "removed":
            file.unlink()
    assert resolve_source(source).digest != before.digest
    with pytest.raises(DataError, match="has changed since this run looked at it"):
        require_unchanged(source, before)


def test_pydocs_is_identified_by_the_interpreter_and_its_source(monkeypatch):
    ref = resolve_source(PydocsSource())
    assert ref == resolve_source(PydocsSource())
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert resolve_source(PydocsSource()).digest != ref.digest


def test_bad_sources_are_refused_here_already(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01" * 99)
    (tmp_path / "spaces.txt").write_text(" \n\n")
    (tmp_path / "rows.jsonl").write_text('{"body": "a"}\n' * 120)
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n' * 120 + "{\n" * 3)
    for name, message in [
        ("empty", "0 bytes"),
        ("binary", "NUL byte"),
        ("spaces", "holds no text"),
        ("none", "no file"),
    ]:
        with pytest.raises(DataError, match=message):
            resolve_source(TextSource(path=str(tmp_path / f"{name}.txt")))
    with pytest.raises(DataError, match=r"no field 'text' \(there are: body\)"):
        resolve_source(JsonlSource(path=str(tmp_path / "rows.jsonl")))
    with pytest.raises(DataError, match=r"3 of 123 rows"):
        resolve_source(JsonlSource(path=str(tmp_path / "broken.jsonl")))
    assert resolve_source(JsonlSource(path=str(tmp_path / "broken.jsonl")), bad_row_share=0.05)
    with pytest.raises(DataError, match="neither an existing folder nor a hub id"):
        resolve_source(DatasetsSource(path="/no/such/folder"))


def test_three_rows_are_too_few_to_split(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(3)))
    with pytest.raises(DataError, match=r"Too little is left to split: 3 documents in 3 groups.*at least 10"):
        resolve_source(JsonlSource(path=str(tmp_path / "rows.jsonl")))
    (tmp_path / "one.md").write_text("# A\nword\n" * 50)
    with pytest.raises(DataError, match=r"50 documents in 1 groups"):
        resolve_source(MarkdownSource(path=str(tmp_path / "one.md")))


def test_fields_of_pairs_are_looked_for(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}", "question": "q"}) + "\n" for n in range(20)))
    pairs = FieldPairs(prompt_field="question", completion_field="anser")
    assert fields_of(pairs) == ("question", "anser")
    assert fields_of(FieldPairs(prompt_field="a", completion_field="b", context_field="c")) == ("a", "b", "c")
    assert fields_of(ConversationPairs()) == ("messages",)
    assert fields_of(QuotePairs()) == ()
    with pytest.raises(DataError, match=r"no field 'anser'.*data\.pairs"):
        resolve_source(JsonlSource(path=str(path)), fields=fields_of(pairs))
    assert resolve_source(JsonlSource(path=str(path)), fields=("question",))


def test_a_large_source_is_tried_by_its_first_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("genai_core.data.resolve.READ_WHOLE_BYTES", 100)
    monkeypatch.setattr("genai_core.data.resolve.FIRST_ROWS", 120)
    good, late, early = tmp_path / "a.csv", tmp_path / "late.csv", tmp_path / "early.csv"
    rows = [f"row {n}" for n in range(300)]
    good.write_text("\n".join(["text", *rows]))
    late.write_text("\n".join(["text", *rows, "a,b", "a,b", "a,b", "a,b"]))
    early.write_text("\n".join(["text", "a,b", "a,b", *rows]))
    assert resolve_source(CsvSource(path=str(good))) and resolve_source(CsvSource(path=str(late)))
    with pytest.raises(DataError, match="2 of 120 rows"):
        resolve_source(CsvSource(path=str(early)))


def test_a_hub_dataset_offline_needs_a_commit(monkeypatch):
    code = (
        "from genai_core.config.data import DatasetsSource\n"
        "from genai_core.data.resolve import resolve_source\n"
        "from genai_core.errors import DataError\n"
        "ref = resolve_source(DatasetsSource(path='owner/name', revision='a' * 40))\n"
        "assert ref.uri == 'hf://datasets/owner/name@' + 'a' * 40, ref\n"
        "try:\n"
        "    resolve_source(DatasetsSource(path='owner/name'))\n"
        "except DataError as error:\n"
        "    assert 'HF_HUB_OFFLINE' in str(error) and 'save_to_disk' in str(error)\n"
        "    print('refused')\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("refused\n", 0), done.stderr


def test_resolving_needs_no_heavy_library():
    code = (
        "import sys, genai_core.data.resolve as r\n"
        "from genai_core.config.data import PydocsSource\n"
        "r.resolve_source(PydocsSource())\n"
        "assert not {'torch', 'ray', 'mlflow', 'transformers', 'datasets', 'boto3', 'pyarrow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
