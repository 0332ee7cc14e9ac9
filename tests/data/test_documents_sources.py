"""Every kind of source with good and bad input; a bad one is named with its file, place and remedy."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from genai_core.config.data import (
    CsvSource,
    DatasetsSource,
    JsonlSource,
    MarkdownSource,
    ParquetSource,
    S3Source,
    TextSource,
)
from genai_core.data.sources import s3
from genai_core.data.sources.registry import read_documents
from genai_core.errors import DataError

SHARE = 0.01


def read(source, share=SHARE):
    return read_documents(source, None, share)


def write_rows(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_folder_of_text_gives_a_document_a_file_in_name_order(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt.gz").write_bytes(gzip.compress("dritte é".encode()))
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst")
    (tmp_path / "ignored.md").write_text("no")
    (tmp_path / ".hidden.txt").write_text("no")
    found = read(TextSource(path=str(tmp_path)))
    assert [(d.doc_id, d.group, d.title, d.text) for d in found.documents] == [
        ("a.txt", "a.txt", "a", "first"),
        ("b.txt", "b.txt", "b", "second"),
        ("sub/a.txt.gz", "sub/a.txt.gz", "a", "dritte é"),
    ]


def test_ids_do_not_depend_on_the_place(tmp_path):
    ids = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_rows(folder / "rows.jsonl", [{"text": "a"}, {"text": "b"}])
        ids.append([d.doc_id for d in read(JsonlSource(path=str(folder))).documents])
        ids.append([d.doc_id for d in read(JsonlSource(path=str(folder / "*.jsonl"))).documents])
        ids.append([d.doc_id for d in read(JsonlSource(path=str(folder / "rows.jsonl"))).documents])
    assert all(each == ["rows.jsonl:1", "rows.jsonl:2"] for each in ids)


def test_paragraphs_are_documents_and_neighbours_share_a_group(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"Paragraph {n}\nsecond line" for n in range(20)) + "\n \n\n")
    found = read(TextSource(path=str(tmp_path / "a.txt"), document="paragraph")).documents
    assert [d.text for d in found] == [f"Paragraph {n}\nsecond line" for n in range(20)]
    assert [d.group for d in found] == ["a.txt#0"] * 8 + ["a.txt#1"] * 8 + ["a.txt#2"] * 4
    assert len({d.doc_id for d in found}) == 20


def test_markdown_sections_and_their_links(tmp_path):
    (tmp_path / "guide").mkdir()
    (tmp_path / "README.md").write_text(
        "# Start\nSee [usage](guide/use.md#the-options) and [web](https://x.org) and ![image](guide/use.md).\n"
        "```sh\n# not a heading\n```\n## Start\nAgain, [above](#start).\n"
    )
    (tmp_path / "guide" / "use.md").write_text("Intro words.\n\n# The `Options`!\nback to [readme](../README.md)\n")
    found = {d.doc_id: d for d in read(MarkdownSource(path=str(tmp_path))).documents}
    assert list(found) == ["README.md#start", "README.md#start-1", "guide/use.md", "guide/use.md#the-options"]
    assert "# not a heading" in found["README.md#start"].text
    assert found["README.md#start"].links == ("guide/use.md#the-options",)
    assert found["README.md#start-1"].links == ("README.md#start",)
    assert found["guide/use.md#the-options"].links == ("README.md#start",)
    assert found["guide/use.md"].group == found["guide/use.md#the-options"].group == "guide/use.md"


def test_jsonl_keeps_fields_groups_and_line_numbers(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(
        gzip.compress(b'{"text": "a", "author": 7, "q": [1, {"x": null}]}\r\n\n{"text": "b", "author": 7}')
    )
    found = read(JsonlSource(path=str(path), group_field="author")).documents
    assert [(d.doc_id, d.group, d.text) for d in found] == [
        ("rows.jsonl.gz:1", "7", "a"),
        ("rows.jsonl.gz:3", "7", "b"),
    ]
    assert found[0].meta["fields"] == {"text": "a", "author": 7, "q": [1, {"x": None}]}


def test_a_csv_field_may_span_lines_and_be_long(tmp_path):
    path = tmp_path / "t.csv"
    long = "word " * 40_000  # longer than the csv module's own limit
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([["text", "who"], ["two\nlines, one field", "ann"], [long, "bob"]])
    before = csv.field_size_limit()
    found = read(CsvSource(path=str(path), group_field="who")).documents
    assert [(d.doc_id, d.group, d.text) for d in found] == [
        ("t.csv:2", "ann", "two\nlines, one field"),
        ("t.csv:4", "bob", long),
    ]
    assert csv.field_size_limit() == before


def test_parquet_and_a_saved_dataset_give_the_same_texts(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"body": ["a", "b"], "n": [1, 2]})
    table.to_parquet(str(tmp_path / "t.parquet"))
    table.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "parts"))
    for source in (
        ParquetSource(path=str(tmp_path / "t.parquet"), text_field="body", group_field="n"),
        DatasetsSource(path=str(tmp_path / "plain"), text_field="body", group_field="n"),
        DatasetsSource(path=str(tmp_path / "parts"), text_field="body", group_field="n"),
    ):
        assert [(d.text, d.group) for d in read(source).documents] == [("a", "1"), ("b", "2")]
    with pytest.raises(DataError, match=r"no split 'test'; it has train"):
        read(DatasetsSource(path=str(tmp_path / "parts"), split="test"))
    with pytest.raises(DataError, match=r"no field 'text'.*there are: body, n"):
        read(DatasetsSource(path=str(tmp_path / "plain")))


def test_s3_objects_are_read_as_files_of_their_format(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{"words": "a"}])
    source = S3Source(path="s3://bucket/x", format="jsonl", text_field="words")
    assert [d.text for d in read(s3.as_files(source, tmp_path)).documents] == ["a"]
    for kind in ("text", "markdown", "csv", "parquet"):
        assert s3.as_files(S3Source(path="s3://b/x", format=kind), tmp_path).kind == kind


# ---- bad input


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds 0 bytes"),
        ("a.txt", bytes(range(256)), "binary: a NUL byte at offset 0"),
        ("a.txt", "caf\xe9 latin".encode("latin-1"), "not UTF-8 text: byte 0xe9 at line 1, offset 3"),
        ("a.txt", "hello".encode("utf-16"), "UTF-16"),
        ("a.txt.gz", b"not gzip at all", "not a whole gzip file"),
        ("a.txt.gz", gzip.compress(b"text " * 1000)[:40], "not a whole gzip file"),
    ],
)
def test_bad_text_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(TextSource(path=str(tmp_path / name)))
    assert name in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_places_name_the_nearest(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"no file or folder.*Did you mean '.*corpus\.jsonl'"):
        read(JsonlSource(path=str(tmp_path / "corpsu.jsonl")))
    with pytest.raises(DataError, match="does not exist either"):
        read(JsonlSource(path=str(tmp_path / "nowhere" / "rows.jsonl")))
    with pytest.raises(
        DataError, match=r"holds no file named \*\.txt \(also packed: \.gz, .*\)\. It holds corpus\.jsonl"
    ):
        read(TextSource(path=str(tmp_path)))
    with pytest.raises(DataError, match="No file matches the pattern"):
        read(TextSource(path=str(tmp_path / "*.txt")))


def test_a_missing_field_names_the_nearest_existing_one(tmp_path):
    path = write_rows(tmp_path / "r.jsonl", [{"contents": "a", "id": 1}, {"contents": "b", "id": 2}])
    with pytest.raises(DataError, match=r"r\.jsonl: no field 'content'; did you mean 'contents'\?.* in each of 2 rows"):
        read(JsonlSource(path=str(path), text_field="content"))
    (tmp_path / "t.csv").write_text("body,n\nx,1\n")
    with pytest.raises(DataError, match=r"t\.csv: no field 'boddy'; did you mean 'body'"):
        read(CsvSource(path=str(tmp_path / "t.csv"), text_field="boddy"))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"no field 'group' \(there are: body\)"):
        read(ParquetSource(path=str(tmp_path / "t.parquet"), text_field="body", group_field="group"))


def test_a_broken_parquet_file_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"t\.parquet' is not a readable Parquet file"):
        read(ParquetSource(path=str(tmp_path / "t.parquet")))


def test_few_bad_rows_of_many_are_skipped_with_their_lines(tmp_path):
    rows: list = [{"text": f"row {n}"} for n in range(600)]
    for line, bad in {
        7: "{",
        70: "[1]",
        170: '{"text": 5}',
        270: '{"txt": "x"}',
        370: '{"text": null}',
        470: "nul",
    }.items():
        rows[line - 1] = bad
    found = read(JsonlSource(path=str(write_rows(tmp_path / "r.jsonl", rows))))
    assert (found.rows, found.skipped, len(found.documents)) == (600, 6, 594)
    assert [place.split(": ")[0] for place in found.first_skipped] == [f"r.jsonl:{n}" for n in (7, 70, 170, 270, 370)]
    assert "expected a string" in found.first_skipped[2]
    assert found.documents[6].doc_id == "r.jsonl:8"  # ids stay what they are in the file


@pytest.mark.parametrize(
    ("total", "bad", "share", "skipped"),
    [(100, 1, 0.01, True), (100, 2, 0.01, False), (400, 4, 0.01, True), (99, 1, 0.05, False), (100, 5, 0.05, True)],
)
def test_the_share_decides_and_a_small_file_has_none_to_spare(tmp_path, total, bad, share, skipped):
    rows: list = [{"text": f"row {n}"} for n in range(total)]
    for n in range(bad):
        rows[n * 10 + 3] = b"\xff\xfe?".decode("latin-1")
    source = JsonlSource(path=str(write_rows(tmp_path / "r.jsonl", rows)))
    if skipped:
        assert read(source, share).skipped == bad
    else:
        with pytest.raises(DataError, match=rf"{bad} of {total} rows.*\n  r\.jsonl:4: not JSON"):
            read(source, share)


def test_bad_csv_rows_are_counted_too(tmp_path):
    lines = ["text,n", *(f"row {n},{n}" for n in range(300))]
    lines[5] = "only one column"
    (tmp_path / "t.csv").write_bytes("\n".join(lines).encode() + b"\nbad \xff byte,1\n")
    found = read(CsvSource(path=str(tmp_path / "t.csv")))
    assert (found.rows, found.skipped) == (301, 2)
    assert found.first_skipped == (
        "t.csv:6: 1 columns, expected 2 as in the header",
        "t.csv:302: field 'text' is not UTF-8 text; data.source.encoding names another encoding",
    )


def test_real_tables_are_read_whole(test_data):
    for name, rows, field in (
        ("pretrain/tinystories_2mb", 2316, "text"),
        ("links/jargon_file", 2307, "text"),
        ("retrieval/boolq_dev", 3270, "passage"),
    ):
        found = read(JsonlSource(path=str(test_data / f"{name}.jsonl.gz"), text_field=field))
        assert (found.rows, found.skipped, len(found.documents)) == (rows, 0, rows)
    prose = read(TextSource(path=str(test_data / "pretrain"), document="paragraph"))
    assert len(prose.documents) > 10_000
