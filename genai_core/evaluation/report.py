"""Reports for people: Markdown tables with intervals and numbers of cases."""

from __future__ import annotations

from collections.abc import Sequence

from genai_core.evaluation.compare import Difference, Report
from genai_core.evaluation.gates import Verdict


def figures_table(report: Report) -> str:
    """Return a Markdown table of a report's figures, the baselines' beside them."""
    names = sorted(report.baselines)
    lines = [
        f"**{report.model}** on the {report.split} split",
        "",
        _row(["figure", "value", "95 % interval", "n", *names]),
        _row(["---", "---:", ":---:", "---:", *["---:"] * len(names)]),
    ]
    for figure, value in sorted(report.figures.items()):
        interval = report.intervals.get(figure)
        lines.append(
            _row(
                [
                    f"{figure} (upper bound)" if f"{figure}_error" in report.figures else figure,
                    _number(value),
                    f"{_number(interval.low)} .. {_number(interval.high)}" if interval else "",
                    str(interval.n) if interval else "",
                    *[_number(report.baselines[name].get(figure)) for name in names],
                ]
            )
        )
    return "\n".join(lines) + "\n"


def differences_table(differences: Sequence[Difference], candidate: str, baseline: str) -> str:
    """Return a Markdown table of paired differences; an interval that excludes 0 is bold."""
    lines = [
        _row(["metric", candidate, baseline, "difference", "95 % interval", "n"]),
        _row(["---", "---:", "---:", "---:", ":---:", "---:"]),
    ]
    for found in differences:
        interval = found.interval
        band = f"{interval.low:+.4f} .. {interval.high:+.4f}"
        lines.append(
            _row(
                [
                    found.metric,
                    _number(found.candidate),
                    _number(found.baseline),
                    f"{interval.mean:+.4f}",
                    f"**{band}**" if interval.low > 0 or interval.high < 0 else band,
                    str(found.n),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def verdict_text(verdict: Verdict) -> str:
    """Return a verdict as Markdown: the decision and one line a reason."""
    return "\n".join(
        ["**Passed**" if verdict.passed else "**Refused**", "", *[f"- {reason}" for reason in verdict.reasons], ""]
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
