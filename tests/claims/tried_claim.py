"""A claim tried in a few steps on a part of the documentation: every comparison finds its arms, and what was trained is kept."""

from __future__ import annotations

from genai_core.claims.base import Cases, Claim, Setting, judge
from genai_core.claims.table import page
from genai_core.data.documents import Pair, read_pairs

SCALE, MODULES = 0.004, 40
"""Two steps; the first modules by name."""


def judged(claim: Claim, cases: Cases) -> dict[str, float]:
    """Return the figures by arm, once every comparison has been judged."""
    assert claim.name in page([claim], {claim.name: [cases]})
    assert "All steps times 0.5." in page([claim], {claim.name: [cases]}, 0.5)
    means = {}
    for one in claim.comparisons:
        found = judge(one, [cases])
        assert found.cases >= 5
        means |= {f"{one.figure}/{one.arm}": found.arm, f"{one.figure}/{one.against}": found.against}
    return means


def taught(setting: Setting) -> list[list[Pair]]:
    """Return the training pairs of the arms that were trained in a folder, oldest first."""
    files = sorted(setting.work.glob("pairs-*/pairs/train.parquet"), key=lambda file: file.stat().st_mtime_ns)
    return [read_pairs(file) for file in files]
