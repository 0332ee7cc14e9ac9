"""The smallest mission is begun as soon as a test of this run wants it, and waited for when that test's turn comes."""

from __future__ import annotations

import os

import pytest
from homes import Ended, Mission

_MISSION = pytest.StashKey[Mission]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin the mission beside the other tests, where there is a core for it."""
    wanted = any("mission" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        session.config.stash[_MISSION] = Mission()
        if len(os.sched_getaffinity(0)) > 1:
            session.config.stash[_MISSION].begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing running."""
    if _MISSION in config.stash:
        config.stash[_MISSION].close()


@pytest.fixture(scope="session")
def mission(pytestconfig: pytest.Config) -> Ended:
    """Return the installation in which the mission has run, and how it ended."""
    return pytestconfig.stash[_MISSION].result()
