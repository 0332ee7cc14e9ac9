"""Measured claims as a page: what was asked, what each arm reached, and whether the claim holds in small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genai_core.claims.base import Cases, Claim, judge

HEAD = """# Objectives: what their papers claim, in small

Written by `genai bench objectives`. Every arm is trained on the same rows from the same start; the interval of a difference
is a paired bootstrap over seeds and cases (95 %). *Holds*: the whole interval is on the better side of the margin that was
written down beforehand; *not shown*: it is on both; *the reverse*: all of it is on the worse side. Models of a few million
weights and minutes of training show what a method does, not what it can reach.
"""


def page(claims: Sequence[Claim], measured: Mapping[str, Sequence[Cases]], scale: float = 1.0) -> str:
    """Return the Markdown page of all claims that were measured.

    Args:
        claims: in the order of the page.
        measured: the cases of each seed, by claim; those without are left out.
        scale: of the steps that were made.
    """
    lines = [HEAD]
    for claim in claims:
        if not measured.get(claim.name):
            continue
        scaled = f" All steps times {scale:g}." if scale != 1 else ""
        lines += [f"## {claim.name}", "", f"{claim.source}. {claim.asks}{scaled}", ""]
        lines += [
            "| the claim | figure | arm | against | difference | 95 % | seeds x cases | |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for comparison in claim.comparisons:
            found = judge(comparison, measured[claim.name])
            allowed = f" (margin {comparison.margin:g})" if comparison.margin else ""
            lines.append(
                f"| {comparison.says}{allowed} | {comparison.figure} | {comparison.arm} {found.arm:.4g} | "
                f"{comparison.against} {found.against:.4g} | {found.difference:+.4g} | "
                f"[{found.low:+.4g}, {found.high:+.4g}] | {found.seeds} x {found.cases} | **{found.word}** |"
            )
        lines.append("")
    return "\n".join(lines)
