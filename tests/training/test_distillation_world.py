"""On real text: a student taught by a larger model that read more, beside the same student on the labels alone.

TinyStories. The teacher reads all of the training text; the student an eighth of it, again and again, with the same rows, steps
and first weights in both arms. Measured are bits per byte of stories that nobody read, plain cross-entropy in both arms.
"""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from genai_core.config.model import FolderBase
from genai_core.data.packing import pack_documents
from genai_core.data.tokenizer import document_end_id, encode_documents, train_tokenizer
from genai_core.models.resolve import resolve_base
from genai_core.training.worker import train_worker

pytestmark = pytest.mark.worlds

STORIES = Path(os.environ.get("GENAI_TEST_DATA", Path(__file__).parents[3] / "shared/data")) / (
    "pretrain/tinystories_2mb.jsonl.gz"
)
SEEDS = (0, 1, 2)
SEQ_LEN = 128
TEACHER = {"n_layers": 3, "d_model": 128, "n_heads": 4, "n_kv_heads": 4, "d_ff": 344}
STUDENT = {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_kv_heads": 4, "d_ff": 172}


def write_corpus(folder: Path) -> None:
    with gzip.open(STORIES, "rt", encoding="utf-8") as lines:
        stories = [json.loads(line)["text"] for line in lines]
    train, heldout = stories[:-200], stories[-200:]
    tokenizer = train_tokenizer(train, 1024, SEQ_LEN)
    tokenizer.save_pretrained(folder / "tokenizer")
    end = document_end_id(tokenizer)
    for name, texts in (("all", train), ("few", train[: len(train) // 8]), ("heldout", heldout)):
        pack_documents(encode_documents(tokenizer, texts), SEQ_LEN, end).write(folder / f"{name}.arrow")


def train(corpus: Path, work: Path, rows: str, base: dict, steps: int, seed: int = 0, **more) -> float:
    """Return bits per byte of the held-out stories."""
    objective = more.pop("objective", {"kind": "causal_lm"})
    train_worker(
        {
            "workspace": str(work),
            "journal": str(work / "journal.jsonl"),
            "rows": str(corpus / f"{rows}.arrow"),
            "held_out": str(corpus / "heldout.arrow"),
            "tokenizer": str(corpus / "tokenizer"),
            "base": {"kind": "scratch", "max_seq_len": SEQ_LEN, "seed": seed, **base},
            "training": {
                "objective": objective,
                "steps": steps,
                "global_batch_tokens": 16 * SEQ_LEN,
                "seq_len": SEQ_LEN,
                "optimizer": {"kind": "adamw", "learning_rate": 3e-3},
                "checkpoint_every_steps": steps,
                "evaluate_every_steps": steps,
                "seed": seed,
            },
            "compute": {"precision": "float32", "micro_batch_rows": 16},
            "output": str(work / "model"),
            "threads": 1,
            **more,
        }
    )
    found = json.loads((work / "summary.json").read_text())["eval_bits_per_byte"]
    assert isinstance(found, float)
    return found


@pytest.mark.skipif(
    not STORIES.is_file(), reason=f"{STORIES} is not there; GENAI_TEST_DATA names the folder of test data"
)
def test_a_teacher_that_read_more_makes_a_better_student_than_the_labels(tmp_path):
    torch.set_num_threads(1)
    write_corpus(tmp_path / "corpus")
    teacher = train(tmp_path / "corpus", tmp_path / "teacher", "all", TEACHER, 400)
    ref = resolve_base(FolderBase(path=str(tmp_path / "teacher" / "model")))
    taught = {
        "objective": {"kind": "distillation", "teacher": {"kind": "folder", "path": ref.uri}},
        "teacher_ref": ref.model_dump(mode="json"),
    }
    gains = []
    for seed in SEEDS:
        labels = train(tmp_path / "corpus", tmp_path / f"labels-{seed}", "few", STUDENT, 240, seed)
        distilled = train(tmp_path / "corpus", tmp_path / f"taught-{seed}", "few", STUDENT, 240, seed, **taught)
        gains.append(labels - distilled)
        print(f"seed {seed}: teacher {teacher:.4f}, labels {labels:.4f}, taught {distilled:.4f}", flush=True)
    mean = sum(gains) / len(gains)
    spread = (sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)) ** 0.5
    half = 4.303 * spread / len(gains) ** 0.5  # t at 95 % with two degrees of freedom
    print(f"gain {mean:.4f} bits per byte, 95 % interval {mean - half:.4f} to {mean + half:.4f}")
    assert mean - half > 0
