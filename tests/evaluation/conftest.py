"""One small world for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_world import write_corpus, write_models


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus/, m0/ (untrained) and m60/ (half trained)."""
    root = tmp_path_factory.mktemp("evaluation")
    write_models(root, write_corpus(root / "corpus"), [0, 60])
    return root
