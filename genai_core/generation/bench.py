"""Generation and scoring speed beside transformers alone, on the same machine, model and prompts, taking turns.

    python -m genai_core.generation.bench --model FOLDER --rounds 3 --json bench.json

    generate   ours: GenerationEngine; it: model.generate over left-padded batches, in the order given
    score      ours: generation.scoring;  it: a forward pass over right-padded batches, in the order given

Greedy, so that both must say the same; the share of equal completions stands beside the rates. Rates are generated (or
scored) tokens a second, medians over rounds. Needs torch and transformers only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genai_core.config.generation import SamplingConfig
from genai_core.data.templates import end_token_ids, render_example
from genai_core.data.tokenizer import document_end_id, load_tokenizer
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.prompts import encode_request, longest_row
from genai_core.generation.scoring import score
from genai_core.generation.types import Request
from genai_core.models.load import load_model


def make_prompts(tokenizer: Any, count: int, longest: int, seed: int = 0) -> list[str]:
    """Return prompts of mixed length: 8 tokens to `longest`, most of them short, of the vocabulary's own words."""
    rng = np.random.default_rng(seed)
    ids = [index for index in range(len(tokenizer)) if index not in set(tokenizer.all_special_ids)]
    lengths = np.clip(rng.lognormal(3.8, 0.8, count), 8, longest).astype(int)
    return [tokenizer.decode(rng.choice(ids, size=length).tolist()) for length in lengths]


def generate_plainly(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, batch_rows: int
) -> list[list[int]]:
    """Return the completions that model.generate gives, up to their end token."""
    ends = sorted({*end_token_ids(tokenizer), document_end_id(tokenizer)})
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    found: list[list[int]] = []
    for start in range(0, len(prompts), batch_rows):
        batch = prompts[start : start + batch_rows]
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(one)) + one for one in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in batch], device=model.device)
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=pad,
        )
        for row in out[:, width:].tolist():
            end = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
            found.append(row[:end])
    return found


@torch.inference_mode()
def score_plainly(model: Any, rows: Sequence[tuple[list[int], int]], batch_rows: int) -> list[float]:
    """Return the loss of the tokens from each row's start on, from whole logits of padded batches."""
    found: list[float] = []
    for start in range(0, len(rows), batch_rows):
        batch = rows[start : start + batch_rows]
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([one + [0] * (width - len(one)) for one, _ in batch], device=model.device)
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one, _ in batch], device=model.device)
        logps = model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
        own = logps[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        found += [float(-own[index, begin - 1 : len(one) - 1].sum()) for index, (one, begin) in enumerate(batch)]
    return found


def take_turns(rounds: int, ours: Callable[[], int], it: Callable[[], int]) -> dict[str, Any]:
    """Return the rates of both, in tokens a second, and the median of their ratios."""
    rates: dict[str, list[float]] = {"ours": [], "it": []}
    for _ in range(rounds):
        for name, run in (("ours", ours), ("it", it)):
            started = time.monotonic()
            tokens = run()
            rates[name].append(tokens / (time.monotonic() - started))
    ratios = [a / b for a, b in zip(rates["ours"], rates["it"], strict=True)]
    return {
        **{name: round(statistics.median(found), 1) for name, found in rates.items()},
        "ours_over_it": round(statistics.median(ratios), 3),
    }


def measure(model: Any, tokenizer: Any, *, count: int, new_tokens: int, batch_rows: int, rounds: int) -> dict[str, Any]:
    """Return the figures of generation and of scoring."""
    longest = (longest_row(model.config) or 1024) // 2
    requests = [Request(str(n), text) for n, text in enumerate(make_prompts(tokenizer, count, longest - new_tokens))]
    prompts = [encode_request(tokenizer, request) for request in requests]
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=new_tokens)
    engine = GenerationEngine(model, tokenizer)
    said: dict[str, list[list[int]]] = {}

    def generate_ours() -> int:
        said["ours"] = [list(one.token_ids) for one in engine.generate(requests, sampling)]
        return sum(map(len, said["ours"]))

    def generate_it() -> int:
        said["it"] = generate_plainly(model, tokenizer, prompts, new_tokens, batch_rows)
        return sum(map(len, said["it"]))

    generation = take_turns(rounds, generate_ours, generate_it)
    generation["equal"] = statistics.fmean(a == b for a, b in zip(said["ours"], said["it"], strict=True))

    texts = make_prompts(tokenizer, 2 * count, longest // 2, seed=1)
    rows = [
        {"row_id": str(n), "prompt": a, "completion": b}
        for n, (a, b) in enumerate(zip(texts[::2], texts[1::2], strict=True))
    ]
    examples = [render_example(tokenizer, row["prompt"], row["completion"]) for row in rows]
    plain = [(ids, len(ids) - sum(mask)) for ids, mask in examples]
    scored = sum(len(ids) - begin for ids, begin in plain)
    losses: dict[str, list[float]] = {}

    def score_ours() -> int:
        losses["ours"] = [row["nll"] for row in score(model, tokenizer, rows)]
        return scored

    def score_it() -> int:
        losses["it"] = score_plainly(model, plain, batch_rows)
        return scored

    scoring = take_turns(rounds, score_ours, score_it)
    scoring["largest_difference"] = max(abs(a - b) / max(1.0, b) for a, b in zip(*losses.values(), strict=True))
    return {"generate": generation, "score": scoring}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m genai_core.generation.bench", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a model with its tokenizer")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--batch-rows", type=int, default=32, help="of transformers' batches")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 = all cores")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(given.model, dtype=torch.float32).to(device).eval()
    found = measure(
        model,
        load_tokenizer(given.model),
        count=given.prompts,
        new_tokens=given.new_tokens,
        batch_rows=given.batch_rows,
        rounds=given.rounds,
    )
    print("| | ours, tokens/s | transformers | ours / it |\n| --- | --- | --- | --- |")
    for name, one in found.items():
        print(f"| {name} | {one['ours']:,.0f} | {one['it']:,.0f} | {one['ours_over_it']:.2f} |")
    print(
        f"equal completions {found['generate']['equal']:.1%}, largest difference of a row's loss "
        f"{found['score']['largest_difference']:.1e} (relative)"
    )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
