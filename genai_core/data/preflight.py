"""The supervision preflight: what exactly would be trained on, to look at before any training is paid for.

A few rows of every task and of the pre-training text are rendered with the trained tokens coloured: as a page
(preflight.html), as data (preflight.json) and for the terminal. Refused are a task of which nothing is trained on, one
of which everything is (the prompt too), and one whose end-of-turn token is never learnt: such a model never stops.

What is counted comes out of `collate`, so that the page shows the very labels of training. A segment's first token
never has one and is left out of the shares.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from genai_core.data.collate import IGNORE_INDEX, collate
from genai_core.data.documents import Pair
from genai_core.data.packing import PackedRow, PackedRows
from genai_core.data.templates import end_of_turn_id, render_examples
from genai_core.errors import DataError

PRETRAIN = "pretrain"  # the source name of packed text
CHECKED = 1000  # examples of a task that are rendered and measured, spread evenly
CHECKED_ROWS = 200
SHOWN_EXAMPLES, SHOWN_ROWS, SHOWN_TOKENS = 3, 2, 600

Span = tuple[str, bool | None]  # a stretch of text and whether it is trained on; None is the border of two segments


def write_preflight(
    output_dir: Path, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair], packed_train: PackedRows
) -> dict[str, Any]:
    """Write preflight.html and preflight.json; return what is in the JSON.

    {"end_token", "sources": {name: {"checked", "tokens", "supervised", "ends_supervised", "share"}},
    "samples": [{"source", "spans": [[text, trained], ...]}]}. The files are there also when the check fails.

    Raises:
        DataError: the supervision is wrong (`check_supervision`), or the template breaks more than 0.1 % of the pairs.
    """
    end = end_of_turn_id(tokenizer)
    report: dict[str, Any] = {
        "end_token": "" if end is None else tokenizer.convert_ids_to_tokens(end),
        "sources": {},
        "samples": [],
    }
    for task in sorted({pair.task for pair in pairs}):
        chosen = _spread([pair for pair in pairs if pair.task == task], CHECKED)
        rendered = render_examples(tokenizer, [(pair.prompt, pair.completion) for pair in chosen])
        rows = [_as_row(*example) for example in rendered if example is not None and example[0]]
        _measure(report, tokenizer, f"pairs/{task}", rows, SHOWN_EXAMPLES)
    rows = packed_train.take(_spread(range(len(packed_train)), CHECKED_ROWS))
    _measure(report, tokenizer, PRETRAIN, rows, SHOWN_ROWS)
    output_dir.mkdir(parents=True, exist_ok=True)
    page = json.dumps(report, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    (output_dir / "preflight.json").write_text(page, encoding="utf-8")
    (output_dir / "preflight.html").write_text(render_preflight_page(report), encoding="utf-8")
    check_supervision(report)
    return report


def check_supervision(report: dict[str, Any]) -> None:
    """Raise DataError for the first source of a preflight that would be trained on wrongly."""
    for name, counts in report["sources"].items():
        text = None
        if name == PRETRAIN:  # documents have no turns, and every token of theirs is meant to be learnt
            if not counts["supervised"]:
                text = "there is nothing to train on: too little text is left. Give more, or look at what was dropped"
        elif counts["supervised"] <= counts["ends_supervised"]:
            text = (
                "0 % of its tokens would be trained on (end tokens apart): the chat template drops the answers, or they "
                "are empty. Correct the template or the pairs"
            )
        elif counts["supervised"] == counts["tokens"]:
            text = (
                "100 % of its tokens would be trained on, the prompts too: the chat template drops the user's turns. "
                "Correct the template"
            )
        elif not counts["ends_supervised"]:
            text = (
                f"its end-of-turn token ({report['end_token'] or 'the chat template writes none'}) is never trained on, so "
                "the model would never stop. Let the chat template write eos_token after the assistant's content"
            )
        if text:
            raise DataError(
                f"Supervision of {name!r}, {counts['checked']:,} checked with {counts['tokens']:,} tokens: {text}. "
                "preflight.html shows the rows."
            )


def render_preflight_text(report: dict[str, Any]) -> str:
    """Return a preflight as text with rich markup, a sample of each source: trained tokens green, the rest dim."""
    from rich.text import Text

    lines = []
    for name, counts in report["sources"].items():
        text = Text()
        text.append(name, style="bold")
        text.append(f"  {counts['share']:.1%} of {counts['tokens']:,} tokens trained on\n")
        spans: list[Span] = next((sample["spans"] for sample in report["samples"] if sample["source"] == name), [])
        for piece, trained in spans:
            text.append("\n" if trained is None else piece, style="green" if trained else "dim")
        lines.append(text.markup)
    return "\n\n".join(lines)


def render_preflight_page(report: dict[str, Any]) -> str:
    """Return a preflight as one self-contained HTML page, for light and dark screens; no script, nothing fetched."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{counts['checked']:,}</td><td>{counts['tokens']:,}</td>"
        f"<td>{counts['supervised']:,}</td><td>{counts['share']:.1%}</td><td>{counts['ends_supervised']:,}</td></tr>\n"
        for name, counts in report["sources"].items()
    )
    samples = "".join(
        f"<h2>{html.escape(sample['source'])}</h2>\n<pre>{''.join(map(_render_span, sample['spans']))}</pre>\n"
        for sample in report["samples"]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Supervision preflight</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        "<h1>Supervision preflight</h1>\n<p><mark>Marked</mark> tokens are trained on, the others are only read. "
        f"An answer ends with <code>{html.escape(report['end_token']) or 'no token'}</code>.</p>\n"
        "<table>\n<tr><th>source</th><th>checked</th><th>tokens</th><th>trained on</th><th>share</th><th>end tokens</th>"
        f"</tr>\n{rows}</table>\n{samples}</body>\n</html>\n"
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --paper: #fff; --faint: #5c6474; --line: #d7dbe3; --mark: #bfe8c8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ee; --paper: #14171e; --faint: #9aa3b5; --line: #333a48; --mark: #1f5a33; }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
pre { border: 1px solid var(--line); border-radius: 6px; padding: .8rem; color: var(--faint);
  font: 14px/1.6 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
mark { background: var(--mark); color: var(--ink); border-radius: 3px; }
hr { border: 0; border-top: 2px dotted var(--line); margin: .4rem 0; }
""".strip()


def _render_span(span: Span) -> str:
    text, trained = span
    if trained is None:
        return "<hr>"
    return f"<mark>{html.escape(text)}</mark>" if trained else html.escape(text)


def _measure(
    report: dict[str, Any], tokenizer: PreTrainedTokenizerFast, name: str, rows: Sequence[PackedRow], shown: int
) -> None:
    """Add a source's counts and samples to the report."""
    end = end_of_turn_id(tokenizer)
    counts = {"checked": len(rows), "tokens": 0, "supervised": 0, "ends_supervised": 0}
    for row in rows:
        labels = collate([row])["labels"].numpy()[0]
        lengths = _lengths_without_padding(row)
        counts["tokens"] += int(lengths.sum()) - len(lengths)
        counts["supervised"] += int((labels != IGNORE_INDEX).sum())
        counts["ends_supervised"] += int((labels == end).sum()) if end is not None else 0
    report["sources"][name] = {**counts, "share": counts["supervised"] / max(1, counts["tokens"])}
    for row in _spread(rows, shown):
        report["samples"].append({"source": name, "spans": _find_spans(tokenizer, row)})


def _find_spans(tokenizer: PreTrainedTokenizerFast, row: PackedRow) -> list[Span]:
    """Return the row's text in stretches of trained and untrained tokens, padding left out."""
    trained = collate([row])["labels"].numpy()[0] != IGNORE_INDEX
    spans: list[Span] = []
    start = 0
    for length in _lengths_without_padding(row):
        if start:
            spans.append(("", None))
        for flag, group in groupby(range(start, min(start + int(length), SHOWN_TOKENS)), key=trained.__getitem__):
            spans.append((str(tokenizer.decode(row.input_ids[list(group)])), bool(flag)))
        start += int(length)
        if start > SHOWN_TOKENS:
            return [*spans, ("…", False)]
    return spans


def _lengths_without_padding(row: PackedRow) -> np.ndarray:
    """Return the lengths of the row's segments, (S,); padding is a last segment of which nothing is trained on."""
    padding = len(row.seq_lengths) > 1 and not row.loss_mask[-int(row.seq_lengths[-1]) :].any()
    return row.seq_lengths[:-1] if padding else row.seq_lengths


def _as_row(ids: list[int], loss_mask: list[int]) -> PackedRow:
    """Return an example as a row of its own, of its own length."""
    return PackedRow(
        np.array(ids, dtype=np.int32), np.array([len(ids)], dtype=np.int32), np.array(loss_mask, dtype=np.int8)
    )


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return up to `count` items, evenly spaced, the first among them."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
