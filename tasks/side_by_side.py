"""Reports of composed texts as one table: a row a figure, a column a model and a way of writing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.figures import number

COMPOSE = "compose-"
"""What the titles of these stages begin with."""

FIGURES = (
    ("BLEU-4 with the source", "quality/bleu"),
    ("ROUGE-L with the source", "quality/rouge_l"),
    ("written tokens that are the source's", "quality/right_tokens"),
    ("bits per byte under the 5-gram", "quality/bits_per_byte"),
    ("length, of the source's", "quality/length"),
    ("lexical coherence", "coherence/lexical"),
    ("distinct-1", "diversity/distinct_1"),
    ("distinct-2", "diversity/distinct_2"),
    ("distinct-3", "diversity/distinct_3"),
    ("self-BLEU", "diversity/self_bleu"),
    ("words that diversity is measured on", "diversity/words"),
    ("copied n-grams", "copy/rate"),
    ("copied from other documents than the source", "copy/elsewhere"),
    ("longest copied run, words", "copy/longest"),
)
LEARNED_FROM = ("real", "composed", "both", "given")
OF_ITSELF = {"copy/rate", "copy/longest", "diversity/words"}
"""Figures of a source that say nothing: it stands in itself."""


def side_by_side(reports: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the rows of the table; none without reports.

    Args:
        reports: report.json of the stage `compose`, by the name of its column.
    """
    rows = []
    for title, name in FIGURES:
        composed = {column: _cell(report, "composed", name) for column, report in reports.items()}
        rows.append({"figure": title, **composed})
        source = {column: _cell(report, "source", name) for column, report in reports.items()}
        if name not in OF_ITSELF and any(cell != "-" for cell in source.values()):
            rows.append({"figure": f"{title}: the sources", **source})
    for measure in ("accuracy", "macro_f1"):
        for learned in LEARNED_FROM:
            told = "real and composed" if learned == "both" else "what was given" if learned == "given" else learned
            cells = {column: _score(report["downstream"].get(learned), measure) for column, report in reports.items()}
            rows.append({"figure": f"downstream {measure.replace('_', ' ')}, learned from {told} texts", **cells})
    return [row for row in rows if any(row[column] != "-" for column in reports)]


def _cell(report: Mapping[str, Any], side: str, name: str) -> str:
    if (interval := report["intervals"][side].get(name)) and name in report["figures"][side]:
        return _interval(interval)
    value = report["figures"][side].get(name)
    return "-" if value is None else number(round(value, 4))


def _score(found: Mapping[str, Any] | None, measure: str) -> str:
    if found is None:
        return "-"
    return _interval(found[measure]) if isinstance(found[measure], Mapping) else number(round(found[measure], 4))


def _interval(value: Mapping[str, float]) -> str:
    mean, low, high = (number(round(value[end], 3)) for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
