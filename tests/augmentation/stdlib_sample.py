"""A few documented functions and classes of the standard library, as the pydocs source tells them."""

from __future__ import annotations

import argparse
import csv
import fnmatch
import inspect
import math
import shutil
import statistics
import string
import textwrap
from typing import Any

from genai_core.data.documents import Document

SAMPLE = (
    argparse.Namespace,
    csv.DictReader,
    fnmatch.filter,
    fnmatch.translate,
    math.atan2,
    math.isclose,
    math.sqrt,
    shutil.copyfile,
    shutil.make_archive,
    shutil.rmtree,
    statistics.NormalDist,
    statistics.quantiles,
    string.capwords,
    textwrap.TextWrapper,
    textwrap.dedent,
    textwrap.shorten,
    textwrap.wrap,
)


def describe(value: Any) -> tuple[Document, list[list[Any]]]:
    """Return the document of an object and its stored parameters."""
    signature, doc = inspect.signature(value), inspect.getdoc(value) or ""
    name = f"{value.__module__}.{value.__qualname__}"
    document = Document(
        doc_id=name,
        group=value.__module__,
        title=name,
        text=f"{name}{signature}\n\n{doc}",
        meta={
            "object": name,
            "signature": str(signature),
            "kind": "class" if inspect.isclass(value) else "function",
            "summary": doc.split("\n\n")[0].replace("\n", " "),
        },
    )
    stored = [[p.name, p.kind.name, p.default is not p.empty] for p in signature.parameters.values()]
    return document, stored


def documents_and_objects() -> tuple[list[Document], dict[str, list[list[Any]] | None]]:
    """Return the sample's documents in name order, and its objects."""
    described = [describe(value) for value in SAMPLE]
    return [document for document, _ in described], {document.title: stored for document, stored in described}
