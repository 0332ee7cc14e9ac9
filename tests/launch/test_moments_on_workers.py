"""On a real Ray: shards of moments from two workers, joined as a tree, are to the bit those of one process without Ray."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from genai_core.config.compute import ComputeConfig
from genai_core.config.model import ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.evaluation.scrubbed_model import ScrubbedModel
from genai_core.launch.inline import InlineWorkers
from genai_core.launch.workers import RayWorkers
from genai_core.models.load import init_scratch, save_model
from genai_core.representations.erasers import fit_leace
from genai_core.representations.moments import Moments
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

POINTS = ("model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm")


def two_points(model: ScrubbedModel, rows: list[dict[str, object]]) -> list[Moments]:
    """Return the moments of a point, and of the next while the first is erased."""
    first = model.moments(rows, 2, POINTS[0], {}, "first")
    return [first, model.moments(rows, 2, POINTS[1], {POINTS[0]: fit_leace(first)}, "second")]


def test_two_workers_measure_what_one_process_does(workers: RayWorkers, tmp_path: Path) -> None:
    draw, halves = random.Random(0), (["river", "stone", "cloud"], ["letter", "paper", "silver"])
    rows = [{"text": " ".join(draw.choices(halves[n % 2], k=6)), "label": n % 2} for n in range(150)]
    tokenizer = train_tokenizer([str(row["text"]) for row in rows], 300, 64)
    base = ScratchBase(d_model=32, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=64, max_seq_len=64)
    save_model(init_scratch(base, tokenizer), tokenizer, tmp_path / "model")
    workspace = Workspace(FolderStore(tmp_path / "store"), "ab" * 32, tmp_path / "scratch")
    journal = Journal(tmp_path / "journal.jsonl")
    inline = InlineWorkers(workspace, journal, lambda: None)
    threads = torch.get_num_threads()
    try:
        found = [
            two_points(ScrubbedModel(tmp_path / "model", 16, map_shards, ComputeConfig(workers=n, threads=1)), rows)
            for map_shards, n in ((workers.map_shards, 2), (inline.map_shards, 1))
        ]
    finally:
        torch.set_num_threads(threads)
        journal.close()
    assert len(list((workers.workspace.path / "shards" / "first").glob("*.jsonl"))) == 3
    for ours, theirs in zip(*found, strict=True):
        assert ours.n == theirs.n and ours.weight == theirs.weight
        assert torch.equal(ours.xx, theirs.xx) and torch.equal(ours.xz, theirs.xz) and bool(ours.xz.abs().max() > 0)
