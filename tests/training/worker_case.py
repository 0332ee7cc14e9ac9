"""A tiny corpus on disk and the arguments of `train_worker` for it. As a script: run the worker on a JSON file."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from genai_core.data.packing import pack_documents
from genai_core.data.tokenizer import train_tokenizer
from genai_core.training.worker import train_worker

WORDS = "the list returns a copy of its items sorted by key unless reverse is true and raises an error if empty"


def texts(count: int) -> list[str]:
    """Return sentences of one small vocabulary, none like another."""
    words = WORDS.split()
    return [" ".join(words[(index * step + step) % len(words)] for step in range(3, 30)) for index in range(count)]


def make_corpus(folder: Path) -> None:
    """Write tokenizer and packed rows."""
    tokenizer = train_tokenizer(texts(80), 320, 64)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoded = [tokenizer(text)["input_ids"] for text in texts(80)]
    end = tokenizer.eos_token_id
    pack_documents(encoded[:70], 32, end).write(folder / "packed" / "train.arrow")
    pack_documents(encoded[70:], 32, end).write(folder / "packed" / "heldout.arrow")
    (folder / "stats.json").write_text(json.dumps({"ngram_bits_per_byte": {"3": 2.5}}))


def arguments(corpus: Path, work: Path, **training: Any) -> dict[str, Any]:
    """Return arguments of a 16-step run of a tiny model."""
    compute = training.pop("compute", {"precision": "float32", "micro_batch_rows": 4})
    more = {key: training.pop(key) for key in ("model",) if key in training}
    return {
        "workspace": str(work),
        "journal": str(work / "journal.jsonl"),
        "rows": str(corpus / "packed" / "train.arrow"),
        "held_out": str(corpus / "packed" / "heldout.arrow"),
        "tokenizer": str(corpus / "tokenizer"),
        "base": {
            "kind": "scratch",
            "n_layers": 2,
            "d_model": 32,
            "n_heads": 2,
            "n_kv_heads": 1,
            "d_ff": 48,
            "max_seq_len": 64,
        },
        "training": {
            "steps": 16,
            "global_batch_tokens": 8 * 32,
            "seq_len": 32,
            "checkpoint_every_steps": 4,
            "evaluate_every_steps": 4,
            "optimizer": {"kind": "adamw", "learning_rate": 3e-3},
            **training,
        },
        "compute": compute,
        "output": str(work / "model"),
        "threads": 1,
        **more,
    }


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_journal(work: Path) -> list[dict[str, Any]]:
    """Return the journal's rows."""
    return [json.loads(line) for line in (work / "journal.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    train_worker(json.loads(Path(sys.argv[1]).read_text()))
