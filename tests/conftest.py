"""What every test stands on: no network, one thread, no server of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from genai_core.launch.quiet import silence

if TYPE_CHECKING:
    from tests.deployments.browser import Page

silence()
os.environ["HF_HUB_OFFLINE"] = "1"
for name in ("GENAI_HOME", "GENAI_STORAGE_URI", "GENAI_TRACKING_URI", "GENAI_RAY_ADDRESS", "PREFECT_API_URL"):
    os.environ.pop(name, None)

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("GENAI_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GENAI_TEST_DATA to its folder")
    return folder


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A tab of a real headless Chromium."""
    from tests.deployments.browser import browse

    with browse(tmp_path) as page:
        yield page
