"""A small real world for the stage bodies: a corpus about invented objects, and a tiny Llama that half knows it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from genai_core.augmentation.pairs import build_pairs
from genai_core.config.base import Config
from genai_core.config.compute import ComputeConfig
from genai_core.config.data import PydocsPairs, QuotePairs
from genai_core.config.model import ScratchBase
from genai_core.data.documents import Document, Pair, write_documents, write_pairs
from genai_core.data.templates import render_example
from genai_core.data.tokenizer import train_tokenizer
from genai_core.launch.inline import InlineWorkers
from genai_core.models.load import init_scratch, load_model, save_model
from genai_core.stages.contract import StageContext, StageJob
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.digest import digest_entries, digest_file
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

PARAMETERS = ("text", "width", "count", "path", "mode", "timeout", "name", "strict")
VERBS = ("Wrap", "Join", "Split", "Open", "Close", "Count", "Sort", "Copy")
SPLITS = {"train": range(0, 8), "heldout": range(8, 11), "sealed": range(11, 14)}


def invent_objects() -> tuple[dict[str, list[Document]], dict[str, list[list[object]]]]:
    """Return the documents of each split and the objects' signatures: 4 functions in each of 14 modules."""
    rng = random.Random(0)
    objects: dict[str, list[list[object]]] = {}
    documents: dict[str, list[Document]] = {}
    for split, modules in SPLITS.items():
        documents[split] = []
        for module in modules:
            for number in range(4):
                name = f"m{module}.f{number}"
                first, second = rng.sample(PARAMETERS, 2)
                objects[name] = [[first, "POSITIONAL_OR_KEYWORD", False], [second, "POSITIONAL_OR_KEYWORD", True]]
                summary = f"{rng.choice(VERBS)} the {first} number {number} of module {module}."
                documents[split].append(
                    Document(
                        doc_id=name,
                        group=f"m{module}",
                        title=name,
                        text=f"{summary} It reads the {second} when it is given.",
                        meta={
                            "object": name,
                            "signature": f"{name}({first}, {second}=None)",
                            "kind": "function",
                            "summary": summary,
                        },
                    )
                )
    return documents, objects


def write_corpus(folder: Path) -> dict[str, list[Pair]]:
    """Write a dataset as the augment stage does (what these stages read of it); return its pairs by split."""
    documents, objects = invent_objects()
    every = [document for split in documents.values() for document in split]
    pairs = build_pairs(every, PydocsPairs(calls_per_object=2), 0, objects)
    prose = [
        Document(f"prose{n}", f"m{n % 14}", "", f"The {v.lower()} number {n} is red. Its {p} has size {n}. It is done.")
        for n, (v, p) in enumerate(zip(VERBS * 2, PARAMETERS * 2, strict=True))
    ]
    pairs += build_pairs(prose, QuotePairs(per_document=1, passage_words=30), 0, None)
    split_of = {f"m{module}": split for split, modules in SPLITS.items() for module in modules}
    found: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for pair in pairs:
        found[split_of[pair.group]].append(pair)
    for split in SPLITS:
        write_documents(folder / "documents" / f"{split}.parquet", documents[split])
        write_pairs(folder / "pairs" / f"{split}.parquet", found[split])
    (folder / "objects.json").write_text(json.dumps(objects), encoding="utf-8")
    return found


def write_models(root: Path, pairs: dict[str, list[Pair]], steps: Sequence[int]) -> None:
    """Train a tiny Llama on all calls and save it after so many steps as root/m<steps>; it learns, but not by heart."""
    torch.set_num_threads(1)
    chosen = [pair for split in pairs.values() for pair in split if pair.task != "name"]
    tokenizer = train_tokenizer([f"{pair.prompt} {pair.completion}" for pair in chosen], 420, 192)
    base = ScratchBase(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=128, max_seq_len=192)
    model = init_scratch(base, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    examples = [render_example(tokenizer, pair.prompt, pair.completion) for pair in chosen]
    rng = random.Random(0)
    for step in range(max(steps) + 1):
        if step in steps:
            save_model(model.eval(), tokenizer, root / f"m{step}")
            model.train()
        batch = rng.sample(examples, 16)
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
        labels = torch.tensor(
            [
                [token if keep else -100 for token, keep in zip(ids, mask, strict=True)] + [-100] * (width - len(ids))
                for ids, mask in batch
            ]
        )
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()


def break_model(source: Path, target: Path) -> None:
    """Save a copy of a model whose weights are noisy: it has forgotten most of what it knew."""
    from genai_core.data.tokenizer import load_tokenizer

    model = load_model(source)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=float(weight.std()) * 0.8)
    save_model(model, load_tokenizer(source), target)


def make_context(
    root: Path, stage: str, config: Config, inputs: dict[str, Path], *, shard_rows: int = 16
) -> StageContext:
    """Return the context of a stage body with InlineWorkers; the workspace stays in `root` for a second attempt."""
    output = root / "output"
    output.mkdir(parents=True)
    workspace = Workspace(FolderStore(root / "store"), "key", root / "scratch")
    refs = {
        role: ArtifactRef(
            kind=ArtifactKind.MODEL,
            name=role,
            version="1",
            digest=digest_entries(
                (str(file.relative_to(path)), file.stat().st_size, digest_file(file))
                for file in path.rglob("*")
                if file.is_file()
            ),
            uri=path.as_uri(),
        )
        for role, path in inputs.items()
    }
    job = StageJob(
        stage=stage,
        title=stage,
        key="key",
        attempt=1,
        kind=ArtifactKind.REPORT,
        name=stage,
        config=config.model_dump(mode="json"),
        inputs=refs,
        compute=ComputeConfig(threads=1, workers=1, shard_rows=shard_rows),
        storage_uri=root.as_uri(),
    )
    journal = Journal(root / "journal.jsonl")
    return StageContext(
        job, inputs, output, workspace, journal, InlineWorkers(workspace, journal, lambda: None), lambda: None
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without_gold(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with another right answer in their check, to see who reads it."""
    return [replace(pair, check={**pair.check, "gold": "len([])"}) for pair in pairs]
