"""Processes of one service are found by their mark, with those of their sessions, and ended with patience or without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genai_core.launch.sessions import end_family, family

SLEEP = "import time; time.sleep(60)"
# a child that bears no mark, as Ray's workers, which overwrite their environment with a name
NAMELESS = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], env={{}}); {SLEEP}"


def start(code: str, mark: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **mark}, start_new_session=True)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[dict[str, str]]:
    one = {"GENAI_UP": str(tmp_path)}
    yield one
    end_family(one)


def test_a_mark_finds_its_own_and_nobody_else(mark: dict[str, str], tmp_path: Path) -> None:
    theirs = {"GENAI_UP": f"{tmp_path}-other"}
    mine, other = start(SLEEP, mark), start(SLEEP, theirs)
    try:
        assert [one.pid for one in family(mark)] == [mine.pid]
        assert end_family(mark) == 1
        assert mine.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        assert end_family(mark) == 0
    finally:
        end_family(theirs)
        other.wait(5)


def test_what_has_lost_its_mark_is_known_by_its_session(mark: dict[str, str]) -> None:
    parent = start(NAMELESS, mark)
    deadline = time.monotonic() + 10
    while len(family(mark)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    [child] = [one for one in family(mark) if one.pid != parent.pid]
    # the parent ends by itself while we wait: the child is known from then
    waits = iter([True])

    def may_wait() -> bool:
        parent.kill()
        parent.wait(5)
        return next(waits, False)

    assert end_family(mark, may_wait) == 1
    child.wait(5)


def test_one_that_ends_by_itself_is_not_killed(mark: dict[str, str]) -> None:
    process = start("import time; time.sleep(0.3)", mark)
    assert end_family(mark, lambda: True) == 0
    assert process.wait(5) == 0
