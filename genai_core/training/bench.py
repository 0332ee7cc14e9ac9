"""Training speed beside the peers', on the same machine, the same documents and the same model, taking turns.

    python -m genai_core.training.bench --sizes 6M 135M --rounds 3 --json bench.json

    ours             the engine: packed rows, documents isolated, nothing padded
    trainer          transformers' Trainer on the very same rows, position_ids included: the same mathematics
    trainer-padded   transformers' Trainer as most people use it: a document a row, padded to the longest of the batch
    sft              TRL's SFTTrainer with packing (where trl is installed)
    sft-padded       TRL's SFTTrainer without

Every turn is a process of its own. A rate is useful tokens (no padding) a second, the median over the steps behind the first
three, then over rounds. The loss of the last steps stands beside it: a faster step that learns less is no faster. Needs torch
and transformers only.

MFU = (6 N + 12 L D T) tokens/s / F,  N weights without the input embeddings, L layers, D width, T row length, F the rate
of one large matrix product, bfloat16 where the processor multiplies it, measured here (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genai_core.config.objectives import CausalLm, Objective
from genai_core.config.training import AdamW, TrainingConfig, Wsd
from genai_core.data.packing import PackedRows, pack_documents
from genai_core.models.fused import choose_kernels
from genai_core.models.process_memory import keep_freed_memory
from genai_core.objectives.registry import build_objectives
from genai_core.training.bench_peers import (
    RATE,
    WARM_STEPS,
    Clock,
    Size,
    Turn,
    run_sft,
    run_trainer,
    run_trainer_padded,
)
from genai_core.training.checkpoint import CheckpointFolder
from genai_core.training.engine import Engine
from genai_core.training.log import Silence
from genai_core.training.parallel import Group
from genai_core.training.processor import has_bfloat16
from genai_core.training.step import NONE_FROZEN, Frozen, Precision
from genai_core.training.worker import LocalKeeper

CONTENDERS = ("ours", "trainer", "trainer-padded", "sft", "sft-padded")


SIZES = {
    "6M": Size(6, 256, 4, 4, 688, 4096, 256, 4096),
    "135M": Size(30, 576, 9, 3, 1536, 49152, 256, 2048),
    "0.1B": Size(12, 768, 12, 12, 2048, 32000, 2048, 65536),
    "0.5B": Size(24, 1280, 20, 20, 3456, 32000, 2048, 65536),
    "1B": Size(24, 1792, 14, 14, 4864, 32000, 2048, 65536),
}


class ClockLog(Silence):
    """The engine's log as a clock."""

    def __init__(self, device: torch.device) -> None:
        self.clock = Clock()
        self._device = device

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """Note a step."""
        self.clock.tick(self._device)
        self.clock.losses.append(float(figures.get("loss", math.nan)))


def make_model(size: Size, device: torch.device) -> Any:
    """Return a model with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocab,
        hidden_size=size.width,
        intermediate_size=size.d_ff,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=size.row_tokens,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        # no padding token: its embedding would be zeros, and 30 norms of a zero vector make a gradient that overflows
        pad_token_id=None,
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(device)


def make_documents(size: Size, tokens: int, seed: int = 0) -> list[list[int]]:
    """Return documents of mixed length in which every token has eight likely followers: something can be learned."""
    rng = np.random.default_rng(seed)
    followers = rng.integers(1, min(size.vocab, 4096), size=(min(size.vocab, 4096), 8))
    documents: list[list[int]] = []
    left = tokens
    while left > 0:
        length = int(np.clip(rng.lognormal(4.4, 0.8), 12, size.row_tokens - 1))
        choices = rng.integers(0, 8, size=length)
        document = [int(rng.integers(1, len(followers)))]
        for choice in choices[1:]:
            document.append(int(followers[document[-1], choice]))
        documents.append(document)
        left -= length + 1
    return documents


def run_ours(
    size: Size,
    model: Any,
    rows: PackedRows,
    steps: int,
    precision: Precision,
    objective: Objective | None = None,
    tokenizer: Any = None,
    frozen: Frozen = NONE_FROZEN,
) -> Turn:
    """Train with the engine; on next-token prediction unless another objective is given."""
    device = model.device
    config = TrainingConfig(
        steps=steps,
        objective=objective or CausalLm(),
        global_batch_tokens=size.step_tokens,
        seq_len=size.row_tokens,
        optimizer=AdamW(learning_rate=RATE, weight_decay=0.0),
        schedule=Wsd(warmup_fraction=0.0, decay_fraction=0.0),
        checkpoint_every_steps=steps,
    )
    log = ClockLog(device)
    with tempfile.TemporaryDirectory() as folder:
        keeper = LocalKeeper(Path(folder))
        engine = Engine(
            model,
            build_objectives(config.objective, tokenizer),
            rows,
            config,
            group=Group(0, 1, device),
            checkpoints=CheckpointFolder(keeper, log, steps),
            log=log,
            frozen=frozen,
            precision=precision,
            micro_batch_rows=min(8, config.rows_per_step()),
        )
        choose_kernels(model, is_bfloat16=precision == "bfloat16", row_tokens=size.row_tokens)
        engine.run()
    return log.clock.turn(size.step_tokens)


def measure_peak(device: torch.device) -> float:
    """Return FLOP/s of a large product, the best of a few: in bfloat16 where the processor multiplies it, else in float32."""
    side = 2048 if device.type == "cpu" else 8192
    a = torch.randn(side, side, dtype=torch.bfloat16 if has_bfloat16(device) else torch.float32, device=device)
    best = math.inf
    for _ in range(8):
        started = time.monotonic()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.monotonic() - started)
    return 2 * side**3 / best


def flops_per_token(size: Size, model: Any) -> float:
    """Return 6 N + 12 L D T."""
    weights = sum(parameter.numel() for parameter in model.parameters())  # tied: the head is the embeddings
    return float(6 * weights + 12 * size.layers * size.width * size.row_tokens)


def take_turn(name: str, contender: str, steps: int, threads: int) -> Turn:
    """Train with one contender from the same start; in a process of its own, so that none has what another set there."""
    if threads:
        torch.set_num_threads(threads)
    size, device = SIZES[name], find_device()
    precision = find_precision(device)
    documents = make_documents(size, size.step_tokens * (steps + 2))
    rows = pack_documents(documents, size.row_tokens, 0)
    model = make_model(size, device)
    match contender:
        case "ours":
            keep_freed_memory()  # as the training worker does
            return run_ours(size, model, rows, steps, precision)
        case "trainer":
            return run_trainer(size, model, rows, steps, precision)
        case "trainer-padded":
            return run_trainer_padded(size, model, documents, steps, precision)
        case "sft" | "sft-padded":
            return run_sft(size, model, documents, steps, precision, packing=contender == "sft")
        case _:
            raise ValueError(f"no contender {contender!r}; there are {', '.join(CONTENDERS)}")


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def find_device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def find_precision(device: torch.device) -> Precision:
    """Return what products are made in."""
    return "bfloat16" if has_bfloat16(device) else "float32"


def measure_size(name: str, contenders: Sequence[str], rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """Return one size's figures: for every contender its rate in each round, the median, the loss, the MFU."""
    size, device = SIZES[name], find_device()
    turns: dict[str, list[Turn]] = {contender: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            turn = in_own_process(take_turn, name, contender, steps, threads)
            turns[contender].append(turn)
            print(
                f"  {name} round {number + 1} {contender}: {turn.rate():,.0f} tokens/s, loss {turn.loss:.3f}",
                flush=True,
            )
    peak = measure_peak(device)
    start = make_model(size, torch.device("cpu"))
    work = flops_per_token(size, start)
    figures = {}
    for contender, found in turns.items():
        rate = statistics.median(turn.rate() for turn in found)
        ratios = [ours.rate() / turn.rate() for ours, turn in zip(turns.get("ours", found), found, strict=True)]
        figures[contender] = {
            "tokens_per_second": [round(turn.rate(), 1) for turn in found],
            "median": round(rate, 1),
            "loss": round(statistics.median(turn.loss for turn in found), 4),
            "mfu": round(work * rate / peak, 4),
            "ours_over_it": round(statistics.median(ratios), 3),
        }
    return {
        "size": asdict(size),
        "parameters": sum(parameter.numel() for parameter in start.parameters()),
        "precision": find_precision(device),
        "peak_gflops": round(peak / 1e9, 1),
        "contenders": figures,
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| size | contender | useful tokens/s | MFU | loss | ours / it |", "| --- | --- | --- | --- | --- | --- |"]
    for name, one in found.items():
        for contender, figures in one["contenders"].items():
            lines.append(
                f"| {name} | {contender} | {figures['median']:,.0f} | {figures['mfu']:.1%} | {figures['loss']:.3f} | "
                f"{figures['ours_over_it']:.2f} |"
            )
    return "\n".join(lines)


def find_slower(found: Mapping[str, Any], baseline: Mapping[str, Any], tolerance: float) -> list[str]:
    """Return what has become slower beside a peer than in an earlier measurement, in words.

    Ratios of two programs in one run are compared, never rates: they hold on another machine too.

    Args:
        found: figures by size, as `measure_size` returns them.
        baseline: the same of an earlier run; what only one of them has is passed over.
        tolerance: share of the earlier ratio that may be lost to noise.
    """
    slower = []
    for name, one in found.items():
        for contender, figures in one["contenders"].items():
            before = baseline.get(name, {}).get("contenders", {}).get(contender, {}).get("ours_over_it")
            now = figures["ours_over_it"]
            if before is not None and contender != "ours" and now < before * (1 - tolerance):
                slower.append(
                    f"{name}: ours / {contender} is {now:.2f}, it was {before:.2f} (tolerance {tolerance:.0%})"
                )
    return slower


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; write JSON where asked; end with 1 if slower beside the peers than before."""
    parser = argparse.ArgumentParser(
        prog="python -m genai_core.training.bench", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--sizes", nargs="+", default=["6M"], choices=SIZES, metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contender")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a turn; the first three do not count")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 = all cores")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--against", type=Path, help="file of an earlier run: fail where a ratio has fallen")
    parser.add_argument("--tolerance", type=float, default=0.15, help="share of a ratio that noise may take")
    given = parser.parse_args(arguments)
    if given.against and not given.against.is_file():
        parser.error(f"--against {given.against}: there is no such file; `--json FILE` of an earlier run writes one")
    if given.steps <= WARM_STEPS:
        parser.error(f"--steps {given.steps}: at least {WARM_STEPS + 1}, the first {WARM_STEPS} do not count")
    if given.threads:
        torch.set_num_threads(given.threads)
    contenders = [one for one in given.contenders if not one.startswith("sft") or find_spec("trl")]
    found = {name: measure_size(name, contenders, given.rounds, given.steps, given.threads) for name in given.sizes}
    print(table(found))
    if given.json:
        where = {"torch": torch.__version__, "device": find_device().type, "threads": torch.get_num_threads()}
        given.json.write_text(json.dumps({"where": where, "sizes": found}, indent=1, sort_keys=True) + "\n")
    if given.against:
        baseline = json.loads(given.against.read_text(encoding="utf-8"))["sizes"]
        slower = find_slower(found, baseline, given.tolerance)
        if slower:
            raise SystemExit("slower than before:\n  " + "\n  ".join(slower))
        print(f"no slower beside the others than in {given.against} (tolerance {given.tolerance:.0%})")


if __name__ == "__main__":
    main()
