"""Training speed of each objective beside next-token prediction, on the same model and rows, taking turns.

    python -m genai_core.training.bench_objectives --size 6M --rounds 3 --json objectives-speed.json

A rate is useful tokens (no padding) of the step's rows a second, the median over the steps behind the first three; a ratio
is taken within a round. `passes` is what the arithmetic asks for: rows that go forward and backward through the model, as a
multiple of the step's rows, a forward pass alone counting a third (backward costs twice what forward does). An objective
whose ratio lies below 1 / passes pays for something else: attention by a mask, rows that are rebuilt, a second head.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genai_core.config.model import FolderBase
from genai_core.config.objectives import (
    BlockDiffusion,
    CausalLm,
    Contrastive,
    Distillation,
    HybridLm,
    LinkedLm,
    MaskedDiffusion,
    MaskedLm,
    Mixture,
    MixtureTerm,
    Objective,
    PrefixLm,
    Ul2,
)
from genai_core.data.packing import pack_documents, pack_examples
from genai_core.data.tokenizer import UL2_MODES
from genai_core.data.ul2_marks import SPELLINGS
from genai_core.models.process_memory import keep_freed_memory
from genai_core.models.row_head import add_row_head
from genai_core.objectives.linked_lm import CLASSES
from genai_core.training.bench import (
    SIZES,
    find_device,
    find_precision,
    in_own_process,
    make_documents,
    make_model,
    run_ours,
)
from genai_core.training.bench_peers import WARM_STEPS, Turn

SENTINELS = 32


@dataclass(frozen=True, slots=True)
class Contender:
    """An objective and the passes that its arithmetic asks for."""

    objective: Objective
    passes: float


CONTENDERS: Mapping[str, Contender] = {
    "causal_lm": Contender(CausalLm(), 1.0),
    "masked_lm": Contender(MaskedLm(), 1.0),
    "mntp": Contender(MaskedLm(reads="previous"), 1.0),
    "hybrid_lm": Contender(HybridLm(), 1.0),
    "prefix_lm": Contender(PrefixLm(), 1.0),
    "masked_diffusion": Contender(MaskedDiffusion(), 1.0),
    # rows are noisy and clean side by side: twice the tokens
    "block_diffusion": Contender(BlockDiffusion(), 2.0),
    "ul2": Contender(Ul2(), 1.0),
    "linked_lm": Contender(LinkedLm(), 1.0),
    # the vectors of all rows without a graph first (GradCache), then each again with one
    "contrastive": Contender(Contrastive(negatives=0), 4 / 3),
    # the teacher is as large as the student here, and only goes forward
    "distillation": Contender(Distillation(teacher=FolderBase(path="teacher")), 4 / 3),
    "causal_lm + masked_lm": Contender(
        Mixture(terms=(MixtureTerm(), MixtureTerm(objective=MaskedLm(reads="previous")))), 2.0
    ),
}


def small_vocabulary(size: int) -> Any:
    """Return a tokenizer of so many words, the last of which are its mask and UL2's marks."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    marks = ["[MASK]", *UL2_MODES.values(), *(SPELLINGS[0].format(number) for number in range(SENTINELS))]
    words = {
        word: number for number, word in enumerate([*(f"w{number}" for number in range(size - len(marks))), *marks])
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "w0")), mask_token="[MASK]", eos_token="w0"
    )


def take_turn(name: str, size_name: str, steps: int, threads: int) -> Turn:
    """Train with one objective from the same start."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    size, device = SIZES[size_name], find_device()
    rows = pack_documents(make_documents(size, size.step_tokens * (steps + 2)), size.row_tokens, 0)
    model = make_model(size, device)
    objective, tokenizer = CONTENDERS[name].objective, small_vocabulary(size.vocab)
    if isinstance(objective, LinkedLm):
        add_row_head(model, CLASSES, seed=0)
        rows = pack_examples(
            [([number % CLASSES, *row.input_ids[1:]], [1] * size.row_tokens) for number, row in enumerate(rows)],
            size.row_tokens,
        )
    frozen = {"teacher": make_model(size, device).requires_grad_(False).eval()} if name == "distillation" else {}
    return run_ours(size, model, rows, steps, find_precision(device), objective, tokenizer, frozen)


def measure(size: str, names: Sequence[str], rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """Return each objective's rate in each round, their median, and the median of its ratios to next-token prediction."""
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            turn = in_own_process(take_turn, name, size, steps, threads)
            turns[name].append(turn)
            print(f"  {size} round {number + 1} {name}: {turn.rate():,.0f} tokens/s", flush=True)
    return {
        name: {
            "tokens_per_second": [round(turn.rate(), 1) for turn in found],
            "median": round(statistics.median(turn.rate() for turn in found), 1),
            "passes": round(CONTENDERS[name].passes, 3),
            "over_causal_lm": round(
                statistics.median(
                    turn.rate() / causal.rate() for turn, causal in zip(found, turns["causal_lm"], strict=True)
                ),
                3,
            ),
        }
        for name, found in turns.items()
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| objective | useful tokens/s | beside causal_lm | 1 / passes | of what its arithmetic allows |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        allowed = 1 / one["passes"]
        lines.append(
            f"| {name} | {one['median']:,.0f} | {one['over_causal_lm']:.2f} | {allowed:.2f} | "
            f"{one['over_causal_lm'] / allowed:.0%} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m genai_core.training.bench_objectives", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--size", default="6M", choices=SIZES, metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--objectives", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every objective")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a turn; the first three do not count")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 = all cores")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(arguments)
    if given.steps <= WARM_STEPS:
        parser.error(f"--steps {given.steps}: at least {WARM_STEPS + 1}, the first {WARM_STEPS} do not count")
    names = ["causal_lm", *(name for name in given.objectives if name != "causal_lm")]
    found = measure(given.size, names, given.rounds, given.steps, given.threads)
    print(table(found))
    if given.json:
        where = {"torch": torch.__version__, "device": find_device().type, "threads": torch.get_num_threads()}
        figures = {"where": where, "size": given.size, "objectives": found}
        given.json.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
