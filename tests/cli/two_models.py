"""A store with two published models of one corpus, their evaluations, and all that is told of them; nothing is trained."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genai_core.config.model import ScratchBase
from genai_core.config.settings import read_settings
from genai_core.data.documents import Document, Pair, write_documents, write_pairs
from genai_core.data.tokenizer import train_tokenizer
from genai_core.evaluation.compare import Report
from genai_core.models.load import init_scratch, save_model
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.owner import this_process

WORDS = "open the file and read every line of it, then close it and say how many words there are in it"
TINY = ScratchBase(n_layers=2, d_model=32, n_heads=2, n_kv_heads=1, d_ff=64, max_seq_len=96)
SOURCE = ArtifactRef(kind=ArtifactKind.SOURCE, name="rows", version="5555", digest="5" * 64, uri="rows.jsonl")


def save_tiny(folder: Path, seed: int = 0) -> Path:
    tokenizer = train_tokenizer([WORDS, WORDS.upper(), *["    return  7\n\n\n8  9\n"] * 9] * 4, 320, 96)
    save_model(init_scratch(TINY.model_copy(update={"seed": seed}), tokenizer), tokenizer, folder)
    return folder


def publish(
    store: ArtifactStore,
    folder: Path,
    kind: ArtifactKind,
    name: str,
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, ArtifactRef],
) -> ArtifactRef:
    key = (name.encode().hex() * 64)[:64]
    claim = acquire(store.objects, key, this_process("test"), stale_seconds=20.0)
    assert isinstance(claim, Claim)
    told = {"stage": stage, "config": dict(config), "inputs": {role: ref.model_dump() for role, ref in inputs.items()}}
    return store.publish(claim, kind, name, folder, told)


def publish_all(home: Path, work: Path) -> tuple[ArtifactRef, ArtifactRef]:
    """Return the two models: `one` answers half its held-out prompts right in its report, `two` all of them."""
    settings = read_settings(home=home)
    from genai_core.storage.open import open_store

    store = ArtifactStore(open_store(settings.storage_uri, settings), settings.scratch)
    corpus = work / "corpus"
    pairs = [
        Pair(f"p{n}", "answer", "g", "d", f"Say word {n}.", word, {"kind": "match", "gold": word})
        for n, word in enumerate(WORDS.split())
    ]
    write_pairs(corpus / "pairs" / "heldout.parquet", pairs)
    write_documents(corpus / "documents" / "heldout.parquet", [Document("d", "g", "", WORDS)])
    source = {"kind": "jsonl", "license": "CC-BY-4.0"}
    data = publish(
        store,
        corpus,
        ArtifactKind.DATASET,
        "corpus",
        "augment",
        {"augmentation": {"source": source}},
        {"source": SOURCE},
    )
    models = []
    for name, seed, steps in (("one", 0, 10), ("two", 1, 20)):
        folder = save_tiny(work / name, seed)
        shutil.copytree(folder, work / f"{name}-published")
        config = {"training": {"steps": steps, "seq_len": 64}}
        ref = publish(store, work / f"{name}-published", ArtifactKind.MODEL, name, "pretrain", config, {"corpus": data})
        rows = [
            {"suite": "answer", "case_id": pair.pair_id, "right": float(name == "two" or n % 2 == 0)}
            for n, pair in enumerate(pairs)
        ]
        Report("heldout", ref.label(), tuple(rows)).write(work / f"{name}-report")
        publish(
            store,
            work / f"{name}-report",
            ArtifactKind.REPORT,
            f"{name}-report",
            "evaluate",
            {"split": "heldout"},
            {"model": ref, "corpus": data},
        )
        models.append(ref)
    return models[0], models[1]
