"""The two records of text at rest: a document and an instruction pair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One document. `group` is the unit of the train/held-out split: a module, a file, a field's value."""

    doc_id: str
    group: str
    title: str
    text: str
    links: tuple[str, ...] = ()
    """doc_ids that this document names."""

    meta: Mapping[str, Any] = field(default_factory=dict)
    """What pair builders need: pydocs {"object", "signature", "kind"}; tables {"fields": {...}}."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One instruction and its answer, with all that a verifier needs to judge another answer."""

    pair_id: str
    task: str
    """"call" and "name" (pydocs), "quote" (own prose), "answer" (own pairs)."""

    group: str
    doc_id: str
    prompt: str
    completion: str
    check: Mapping[str, Any] = field(default_factory=dict)
    """What the verifier reads; its "kind" names the verifier. Only "gold" in it is the right answer."""

    origin: str = "real"
    """"real", "synthetic-g1", "corrected"."""


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write pairs as Parquet, in the order given; return their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "pair_id": pair.pair_id,
            "task": pair.task,
            "group": pair.group,
            "doc_id": pair.doc_id,
            "prompt": pair.prompt,
            "completion": pair.completion,
            "check": json.dumps(dict(pair.check), sort_keys=True, ensure_ascii=False),
            "origin": pair.origin,
        }
        for pair in pairs
    ]
    names = ("pair_id", "task", "group", "doc_id", "prompt", "completion", "check", "origin")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names])), path)
    return len(rows)


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a Parquet file."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    return [Pair(**{**row, "check": json.loads(row["check"])}) for row in rows]


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write documents as Parquet, in the order given; return their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "doc_id": doc.doc_id,
            "group": doc.group,
            "title": doc.title,
            "text": doc.text,
            "links": list(doc.links),
            "meta": json.dumps(dict(doc.meta), sort_keys=True, ensure_ascii=False),
        }
        for doc in documents
    ]
    schema = pa.schema(
        [(name, pa.string()) for name in ("doc_id", "group", "title", "text")]
        + [("links", pa.list_(pa.string())), ("meta", pa.string())]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return len(rows)


def read_documents_file(path: Path) -> list[Document]:
    """Return the documents of a Parquet file."""
    import pyarrow.parquet as pq

    return [
        Document(**{**row, "links": tuple(row["links"] or ()), "meta": json.loads(row["meta"])})
        for row in pq.read_table(path).to_pylist()
    ]
