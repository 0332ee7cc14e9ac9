"""Texts with a label each, fitted on and held out: a concept, as the corpus or a table of the user's says it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_core.config.erasure import CorpusConcept, ErasureConfig, LabelledConcept
from genai_core.data.documents import Document, read_documents_file
from genai_core.data.sources.registry import read_documents
from genai_core.data.sources.tables import find_field
from genai_core.errors import DataError
from genai_core.evaluation.runner import choose

BAD_ROW_SHARE = 0.01


@dataclass(frozen=True)
class LabelledTexts:
    """What erasers are fitted on, and what probes are measured on only."""

    labels: tuple[str, ...]
    """Their names; a row's label is a number from 0 into them."""

    fitted: list[dict[str, Any]]
    heldout: list[dict[str, Any]]
    """Rows {"row_id", "text", "label"}."""

    left_out: dict[str, int]
    """Labels of too few texts, with the number of texts to fit on that had them."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many texts of each label there are on each side."""
        found = {side: Counter(row["label"] for row in getattr(self, side)) for side in ("fitted", "heldout")}
        return {name: {side: found[side][index] for side in found} for index, name in enumerate(self.labels)}


def read_labelled(config: ErasureConfig, corpus: Path, labelled: Path | None) -> LabelledTexts:
    """Return the texts of a concept.

    Args:
        config: names the concept and how many texts are wanted.
        corpus: a dataset artifact.
        labelled: where the source of a labelled concept lies now.

    Raises:
        DataError: nothing has the label, or fewer than two labels have enough texts.
    """
    match config.concept:
        case CorpusConcept(field=field):
            sides = [
                [(document, label_of(document, field)) for document in read_documents_file(corpus / "documents" / name)]
                for name in ("train.parquet", "heldout.parquet")
            ]
            where = f"No document of the corpus has a {field!r}"
        case LabelledConcept() as concept:
            documents = read_documents(concept.source(), labelled, BAD_ROW_SHARE).documents
            rows = [(document, _of_table(document, concept.label_field)) for document in documents]
            is_held = _divide(documents, concept.heldout_fraction, config.seed)
            sides = [[row for row in rows if is_held(row[0]) == held] for held in (False, True)]
            where = f"No labelled text has a field {concept.label_field!r}"
    known = [[(document, label) for document, label in side if label and document.text.strip()] for side in sides]
    if not known[0]:
        raise DataError(f"{where} with a value. Correct erasure.concept.")
    chosen = [
        choose(side, lambda row: row[0].doc_id, most, config.seed)
        for side, most in zip(known, (config.max_texts, config.max_heldout_texts), strict=True)
    ]
    counts = Counter(label for _, label in chosen[0])
    labels = tuple(sorted(label for label, n in counts.items() if n >= config.min_label_texts))
    if len(labels) < 2:
        raise DataError(
            f"Of {len(chosen[0])} texts to fit on, labels have {dict(counts.most_common(5))}: fewer than two have "
            f"erasure.min_label_texts={config.min_label_texts}, so there is nothing to tell apart. Give more texts, or lower it."
        )
    number = {label: index for index, label in enumerate(labels)}
    fitted, heldout = (
        [
            {"row_id": document.doc_id, "text": document.text, "label": number[label]}
            for document, label in side
            if label in number
        ]
        for side in chosen
    )
    left_out = {label: n for label, n in sorted(counts.items()) if label not in number}
    return LabelledTexts(labels, fitted, heldout, left_out)


def label_of(document: Document, field: str) -> str:
    """Return what the corpus says of one of its documents in a field, '' where nothing."""
    if field == "group":
        return document.group
    return _of_table(document, field) or _text(document.meta.get(field))


def _of_table(document: Document, field: str) -> str:
    return _text(find_field(document.meta.get("fields", {}), field)[0])


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, (dict, list)) else str(value)


def _divide(documents: Sequence[Document], share: float, seed: int) -> Callable[[Document], bool]:
    """Return which documents are held out: by group, so that no group is on both sides."""
    groups = sorted({document.group for document in documents}, key=lambda group: _rank(group, seed))
    held = set(groups[: round(share * len(groups))])
    return lambda document: document.group in held


def _rank(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()
