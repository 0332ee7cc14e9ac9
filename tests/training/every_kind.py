"""Every kind of objective over rows of its own, for the whole worker: one small folder, and the worker's arguments by name.

As a script: run the worker on some of them, as the ranks of a gloo group.

    python every_kind.py WORLD_SIZE OUT FOLDER NAME [NAME ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from gloo_ranks import fork_ranks, joined
from worker_case import WORDS, arguments, texts

from genai_core.augmentation.link_graph import segments_of
from genai_core.config.objectives import LinkedLm
from genai_core.data.documents import Document, Pair
from genai_core.data.linked_rows import PairDrawer, segment_tokens, write_pairs_of_segments
from genai_core.data.packing import pack_documents
from genai_core.data.retrieval_rows import RetrievalExample, build_retrieval_rows
from genai_core.data.tokenizer import train_tokenizer
from genai_core.data.tuning_rows import build_tuning_rows
from genai_core.models.resolve import resolve_base
from genai_core.training.worker import train_worker

SEQ_LEN = 48
STEPS = 24
TEACHER = {"kind": "folder", "path": "teacher"}
SHARES = [{"name": "text", "rows": 0.5}, {"name": "pairs", "rows": 0.25}, {"name": "retrieval", "rows": 0.25}]
SEARCH = {"kind": "contrastive", "temperature": 0.1}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "causal_lm": ("text", {"kind": "causal_lm"}),
    "prefix_lm": ("text", {"kind": "prefix_lm"}),
    "masked_lm": ("text", {"kind": "masked_lm", "masking": {"rate": 0.4, "final_rate": 0.2}}),
    "mntp": ("text", {"kind": "masked_lm", "reads": "previous", "masking": {"unit": {"kind": "span"}}}),
    "linked_lm": ("linked", {"kind": "linked_lm"}),
    "hybrid_lm": ("text", {"kind": "hybrid_lm"}),
    "masked_diffusion": ("text", {"kind": "masked_diffusion"}),
    "annealed": ("pairs", {"kind": "masked_diffusion", "reads": "previous", "anneal": 0.6}),
    "block_diffusion": ("text", {"kind": "block_diffusion", "block_length": 8}),
    "ul2": ("text", {"kind": "ul2"}),
    "contrastive": ("retrieval", SEARCH),
    "distillation": ("text", {"kind": "distillation", "teacher": TEACHER, "label_weight": 0.5}),
    "mixture": (
        "",
        {
            "kind": "mixture",
            "datasets": SHARES,
            "terms": [
                {"objective": {"kind": "causal_lm"}, "dataset": "pairs"},
                {"objective": {"kind": "masked_lm", "reads": "previous"}, "dataset": "text", "rows": 0.5},
                {"objective": {"kind": "masked_diffusion"}, "dataset": "text", "rows": 0.5, "begin": 0.25},
                {"objective": SEARCH, "dataset": "retrieval", "weight": 0.5},
            ],
        },
    ),
}
"""The rows of each, and the objective: all kinds of the union, and some in another form."""


def make_everything(folder: Path) -> None:
    """Write a tokenizer with all marks, rows of every sort by the stages' own builders, and a teacher."""
    tokenizer = train_tokenizer(texts(80), 400, 64, mask_token=True, sentinels=32)
    tokenizer.save_pretrained(folder / "tokenizer")
    end = tokenizer.eos_token_id
    encoded = [tokenizer(text)["input_ids"] for text in texts(80)]
    pack_documents(encoded[:60], SEQ_LEN, end).write(folder / "text.arrow")
    pack_documents(encoded[60:], SEQ_LEN, end).write(folder / "heldout.arrow")

    said = [text.split() for text in texts(60)]
    pairs = [
        Pair(f"p{at}", "answer", f"g{at}", f"d{at}", " ".join(words[:5]), " ".join(words[5 : 7 + at % 5]), {})
        for at, words in enumerate(said)
    ]
    build_tuning_rows(pairs, [], tokenizer, SEQ_LEN, 0.0, 0)[0].write(folder / "pairs.arrow")

    examples = [RetrievalExample(" ".join(words[:3]), " ".join(words), (WORDS,)) for words in said]
    build_retrieval_rows(examples, tokenizer, SEQ_LEN, negatives=1)[0].write(folder / "retrieval.arrow")

    rng = np.random.default_rng(0)
    documents = [
        Document(f"d{at}", f"d{at}", f"d{at}", text, tuple(f"d{other}" for other in rng.choice(40, 2)))
        for at, text in enumerate(texts(40))
    ]
    segments = segments_of(documents, tokenizer, segment_tokens(SEQ_LEN), LinkedLm())
    shares = write_pairs_of_segments(
        PairDrawer(segments), folder / "linked.arrow", seq_len=SEQ_LEN, draws=2, seed=0, end=end, pad=0
    )
    assert min(shares.values()) > 0.1, shares

    teacher = given(folder, folder / "teaching", "causal_lm", steps=4)
    teacher["base"] = {**teacher["base"], "d_model": 48, "n_layers": 3, "n_heads": 3}
    train_worker({**teacher, "output": str(folder / "teacher")})


def given(folder: Path, work: Path, name: str, **training: Any) -> dict[str, Any]:
    """Return the worker's arguments for one kind."""
    sort, objective = KINDS[name]
    objective = {
        **objective,
        **({"teacher": {**TEACHER, "path": str(folder / "teacher")}} if "teacher" in objective else {}),
    }
    values = {"seq_len": SEQ_LEN, "global_batch_tokens": 8 * SEQ_LEN, "steps": STEPS, "seed": 5, **training}
    made = arguments(folder, work, objective=objective, **values)
    made["rows"] = str(folder / f"{sort}.arrow") if sort else ""
    made["datasets"] = {} if sort else {one["name"]: str(folder / f"{one['name']}.arrow") for one in SHARES}
    made["held_out"] = str(folder / ("linked.arrow" if sort == "linked" else "heldout.arrow"))
    if name == "distillation":
        from genai_core.config.objectives import Distillation

        made["teacher_ref"] = resolve_base(Distillation.model_validate(objective).teacher).model_dump(mode="json")
    return made


def main(rank: int, world_size: int, out: Path, folder: Path, *names: str) -> None:
    """Run the worker on each, at float64, as one rank."""
    with joined(rank, world_size, out):
        for name in names:
            compute = {"precision": "float64", "micro_batch_rows": 2}
            train_worker(given(folder, out / name, name, compute=compute, steps=8))
            if world_size > 1:
                dist.barrier()


if __name__ == "__main__":
    sys.exit(fork_ranks(main, int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]))
