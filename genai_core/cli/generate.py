"""`genai generate`: a file of prompts in, a file of completions out; run again, it goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genai_core.cli.locate import locate_folder
from genai_core.cli.options import settings_of
from genai_core.config.generation import SamplingConfig
from genai_core.errors import ConfigError, DataError

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Asked:
    """One line of the output: a row of the input and the number of the sample."""

    row: dict[str, Any]
    prompt: str
    line: int
    sample: int


def read_prompts(path: Path, field: str, samples: int) -> list[Asked]:
    """Return what is asked: `samples` times every row of a JSONL file, or every line of any other text.

    Raises:
        DataError: no file, nothing in it, a line that is no JSON object, a row without the field.
    """
    if not path.is_file():
        raise DataError(
            f"There is no file {path}. Give a JSONL file with a field {field!r}, or a text, a prompt a line."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    found: list[Asked] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(path, number, line, field) if path.suffix in {".jsonl", ".json"} else {field: line}
        found += [Asked(row, row[field], number, sample) for sample in range(samples)]
    if not found:
        raise DataError(f"{path} holds no prompt.")
    return found


def _row(path: Path, number: int, line: str, field: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {number} is not JSON: {error.msg}.") from None
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        names = ", ".join(map(repr, row)) if isinstance(row, dict) else "no object"
        raise DataError(f"{path} line {number} has no text {field!r}; it has {names}. Name the field with --field.")
    return row


def read_done(out: Path, asked: list[Asked], field: str) -> int:
    """Return how many lines of the output are there already; a line that a killed run tore is cut off.

    Raises:
        ConfigError: the file answers other prompts.
    """
    if not out.exists():
        return 0
    whole = out.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    lines = kept.splitlines()
    for number, (line, one) in enumerate(zip(lines, asked, strict=False), 1):
        row = json.loads(line)
        if (row.get(field), row.get("sample")) != (one.prompt, one.sample):
            raise ConfigError(f"{out} line {number} answers another prompt. Choose another --out, or delete it.")
    if len(lines) > len(asked):
        raise ConfigError(f"{out} has {len(lines)} lines, more than the {len(asked)} asked for. Choose another --out.")
    if len(kept) < len(whole):
        with out.open("r+b") as handle:
            handle.truncate(len(kept))
    return len(lines)


def generate_file(
    model: str,
    path: Path,
    out: Path | None,
    field: str,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    mlflow: str,
    storage: str,
) -> None:
    """Complete every prompt of a file and write a line for each, in order."""
    if samples > 1 and not temperature:
        raise ConfigError(
            f"--samples {samples} at temperature 0 are all the same. Raise --temperature, or ask for one."
        )
    asked = read_prompts(path, field, samples)
    out = out or path.with_suffix(".completions.jsonl")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}. Make it, or choose another.")
    done = read_done(out, asked, field)
    console = Console(highlight=False, stderr=True)
    if done == len(asked):
        console.print(f"All {done:,} completions are in {out} already.")
        return
    folder = locate_folder(model, settings_of(storage, mlflow))
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
    started, tokens, skipped = time.monotonic(), 0, 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with out.open("a", encoding="utf-8") as handle, Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("generate", total=len(asked), completed=done, rate="")
        for rows in complete(folder, asked[done:], field, sampling):
            handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            handle.flush()
            tokens += sum(row["tokens"] for row in rows)
            skipped += sum("error" in row for row in rows)
            rate = tokens / (time.monotonic() - started)
            bar.update(task, advance=len(rows), rate=f"{rate:,.0f} tok/s")
    seconds = time.monotonic() - started
    resumed = f", {done:,} were there already" if done else ""
    console.print(f"{len(asked) - done:,} completions in {out} ({tokens:,} tokens in {seconds:.1f} s{resumed}).")
    if skipped:
        console.print(f"{skipped:,} prompts are too long for the model; their lines say so in 'error'.")


def complete(folder: Path, asked: list[Asked], field: str, sampling: SamplingConfig) -> Iterator[list[dict[str, Any]]]:
    """Yield the lines of the output, some at a time, in order."""
    import torch

    from genai_core.data.tokenizer import load_tokenizer
    from genai_core.generation.diffusion_engine import open_engine
    from genai_core.generation.prompts import encode_request, longest_row
    from genai_core.generation.types import Request
    from genai_core.models.load import load_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, tokenizer = load_model(folder).to(device).eval(), load_tokenizer(folder)
    engine, longest = open_engine(loaded, tokenizer, folder), longest_row(loaded.config)
    for start in range(0, len(asked), ROWS_AT_ONCE):
        part = asked[start : start + ROWS_AT_ONCE]
        # a row's noise hangs on its place in the file, not on what is asked beside it: a resume says the same
        requests = [Request(row_id=f"{one.line}/{one.sample}", prompt=one.prompt) for one in part]
        sizes = [len(encode_request(tokenizer, request)) for request in requests]
        fits = [longest is None or size < longest for size in sizes]
        answers = iter(engine.generate([one for one, good in zip(requests, fits, strict=True) if good], sampling))
        rows: list[dict[str, Any]] = []
        for one, size, good in zip(part, sizes, fits, strict=True):
            row = {**one.row, field: one.prompt, "sample": one.sample}
            if good:
                answer = next(answers)
                said = {"completion": answer.text, "finish_reason": answer.finish_reason, "tokens": answer.n_tokens}
            else:
                said = {"completion": "", "tokens": 0, "error": f"{size} tokens; the model holds {longest}"}
            rows.append(row | said)
        yield rows
