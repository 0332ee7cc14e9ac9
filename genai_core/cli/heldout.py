"""The prompts that a model did not see: held-out pairs of the corpus in its lineage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from genai_core.data.documents import Pair, read_documents_file, read_pairs
from genai_core.errors import GenaiCoreError
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.tracking.lineage import Node, lineage


def open_corpus(ref: ArtifactRef, store: ArtifactStore) -> Path | None:
    """Return the folder of the corpus that a model was trained on, None if it is not in the store any more."""
    corpus = next((node for node in walk(ref, store) if node.stage == "augment"), None)
    if corpus is None:
        return None
    try:
        return store.fetch(corpus.ref)
    except GenaiCoreError:
        return None


def walk(ref: ArtifactRef, store: ArtifactStore) -> list[Node]:
    """Return a model's ancestors, itself first."""
    return list(lineage(store.manifest, ref).walk())


def heldout_pairs(corpus: Path, count: int) -> list[Pair]:
    """Return so many held-out pairs: of each task in turn, always the same ones, whatever their order in the file."""
    from genai_core.evaluation.runner import choose

    pairs = read_pairs(corpus / "pairs" / "heldout.parquet")
    tasks = sorted({pair.task for pair in pairs})
    chosen = [
        choose([pair for pair in pairs if pair.task == task], lambda pair: pair.pair_id, count, 0) for task in tasks
    ]
    return [pair for turn in zip_longest(*chosen) for pair in turn if pair is not None][:count]


def heldout_texts(corpus: Path, count: int) -> Sequence[str]:
    """Return so many held-out documents, always the same ones."""
    from genai_core.evaluation.runner import choose

    documents = read_documents_file(corpus / "documents" / "heldout.parquet")
    return [document.text for document in choose(documents, lambda one: one.doc_id, count, 0)]
