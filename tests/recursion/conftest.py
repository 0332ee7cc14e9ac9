"""The world of the evaluation tests, a little longer trained: its samples are calls, and not all of them the asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "evaluation"))

from tiny_world import break_model, write_corpus, write_models


@pytest.fixture(scope="session")
def grown_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus/, m150/, m175/ (trained for so many steps) and broken/ (m175 with noise)."""
    root = tmp_path_factory.mktemp("recursion")
    write_models(root, write_corpus(root / "corpus"), [150, 175])
    break_model(root / "m175", root / "broken")
    return root
