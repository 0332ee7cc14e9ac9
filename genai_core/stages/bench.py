"""Speed and memory of the preparation by step: a tenth of a folder of text, then the whole, each in a process of its own.

    python -m genai_core.stages.bench FOLDER --json preparation.json --profile

Ten times the text should take ten times the seconds: what takes more grows faster than its input. MB is 10^6 bytes of text
as the source gave it; memory is the process's peak less what it held before the first byte was read.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import pstats
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genai_core.config.compute import ComputeConfig
from genai_core.config.data import AugmentationConfig, QuotePairs, TextSource, TrainTokenizer
from genai_core.config.stages import AugmentStage
from genai_core.data.resolve import resolve_source
from genai_core.launch.inline import InlineWorkers
from genai_core.models.process_memory import peak_bytes
from genai_core.stages.augment import augment
from genai_core.stages.contract import StageContext, StageJob
from genai_core.storage.artifact import ArtifactKind
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

PARTS = 10
SHOWN = 15
_KEY = "0" * 64


def prepare(folder: Path, vocab_size: int, profiled: bool) -> dict[str, Any]:
    """Prepare a folder of text once, in this process; return seconds by step, bytes and peak memory in bytes."""
    settings = AugmentationConfig(
        source=TextSource(path=str(folder)), pairs=QuotePairs(), tokenizer=TrainTokenizer(vocab_size=vocab_size)
    )
    source = resolve_source(settings.source)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        workspace = Workspace(FolderStore(home / "store"), _KEY, home / "scratch")
        journal = Journal(workspace.path / "journal.jsonl")
        output = home / "output"
        output.mkdir()
        job = StageJob(
            stage="augment",
            title="augment",
            key=_KEY,
            attempt=1,
            kind=ArtifactKind.DATASET,
            name="corpus",
            config=AugmentStage(augmentation=settings).model_dump(mode="json"),
            inputs={"source": source},
            compute=ComputeConfig(),
            storage_uri=str(home / "store"),
        )
        context = StageContext(
            job=job,
            inputs={"source": folder},
            output=output,
            workspace=workspace,
            journal=journal,
            workers=InlineWorkers(workspace, journal, lambda: None),
            check=lambda: None,
        )
        held = peak_bytes()
        profile = cProfile.Profile()
        if profiled:
            profile.enable()
        result = augment(AugmentStage.model_validate(job.config), context)
        profile.disable()
        stats = json.loads((output / "stats.json").read_text(encoding="utf-8"))
    return {
        "bytes": stats["bytes_read"],
        "documents": stats["documents_read"],
        "seconds": result.told["step_seconds"],
        "memory": peak_bytes() - held,
        "profile": _own_seconds(profile) if profiled else [],
    }


def measure(folder: Path, vocab_size: int = 4096, profiled: bool = False) -> dict[str, Any]:
    """Prepare a tenth of the folder's files and all of them; return both.

    Raises:
        ValueError: the folder has too few files to take a tenth of.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(files) < PARTS:
        raise ValueError(f"{folder} has {len(files)} files; a tenth of it needs at least {PARTS}")
    with tempfile.TemporaryDirectory() as place:
        part = Path(place) / "part"
        part.mkdir()
        for number, path in enumerate(files[::PARTS]):
            shutil.copy(path, part / f"{number:06d}{path.suffix}")
        return {
            "part": _in_own_process(part, vocab_size, False),
            "whole": _in_own_process(folder, vocab_size, False),
            # a second time, because watching every call slows them
            "profile": _in_own_process(folder, vocab_size, True)["profile"] if profiled else [],
        }


def growth(found: Mapping[str, Any]) -> dict[str, float]:
    """Return how much more seconds (in all, and by step) and memory the whole took, divided by how much more text it is."""
    part, whole = found["part"], found["whole"]
    more = whole["bytes"] / part["bytes"]
    steps = {
        step: whole["seconds"][step] / part["seconds"][step] / more
        for step in whole["seconds"]
        if part["seconds"][step] > 0
    }
    total = sum(whole["seconds"].values()) / sum(part["seconds"].values()) / more
    return {"in all": total, "memory": whole["memory"] / max(1, part["memory"]) / more, **steps}


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown tables."""
    part, whole, more = found["part"], found["whole"], growth(found)
    sizes = part["bytes"] / 1e6, whole["bytes"] / 1e6
    lines = [
        f"| step | {sizes[0]:.2f} MB, s | {sizes[1]:.2f} MB, s | MB/s | growth / growth of the text |",
        "| --- | --- | --- | --- | --- |",
    ]
    for step, seconds in whole["seconds"].items():
        rate = f"{sizes[1] / seconds:.1f}" if seconds > 0 else "-"
        lines.append(f"| {step} | {part['seconds'][step]:.2f} | {seconds:.2f} | {rate} | {more.get(step, 0):.2f} |")
    totals = [sum(one["seconds"].values()) for one in (part, whole)]
    lines.append(f"| in all | {totals[0]:.2f} | {totals[1]:.2f} | {sizes[1] / totals[1]:.2f} | {more['in all']:.2f} |")
    lines.append(
        f"\nMemory: {part['memory'] / 1e6:.0f} MB and {whole['memory'] / 1e6:.0f} MB, "
        f"{whole['memory'] / whole['bytes']:.1f} bytes a byte of text."
    )
    if found["profile"]:
        lines += ["\n| own seconds | calls | where |", "| --- | --- | --- |"]
        lines += [f"| {row['seconds']:.2f} | {row['calls']:,} | {row['where']} |" for row in found["profile"]]
    return "\n".join(lines)


def _in_own_process(folder: Path, vocab_size: int, profiled: bool) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(prepare, (folder, vocab_size, profiled))


def _own_seconds(profile: cProfile.Profile) -> list[dict[str, Any]]:
    stats: Any = pstats.Stats(profile)
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:SHOWN]
    return [
        {"seconds": own, "calls": calls, "where": f"{Path(file).name}:{line} {name}" if line else name}
        for (file, line, name), (_, calls, own, _, _) in rows
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m genai_core.stages.bench", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("folder", type=Path, help="text files; every tenth of them is the smaller corpus")
    parser.add_argument("--vocab", type=int, default=4096, help="entries of the tokenizer")
    parser.add_argument("--profile", action="store_true", help="also prepare the whole once under a profiler")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"{given.folder}: there is no such folder")
    try:
        found = measure(given.folder, given.vocab, given.profile)
    except ValueError as error:
        parser.error(str(error))
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
