"""Services are started in their order, again when they die, given up in the end, and taken down with all they started."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from genai_core.cli import supervise
from genai_core.cli.board import Board
from genai_core.cli.kept import FlowWorker
from genai_core.cli.services import launch
from genai_core.cli.supervise import Service, Started, State, tail, take_down, watch
from genai_core.launch.sessions import end_family, family

SLEEP = "import time; time.sleep(60)"
# a child in a session of its own that ignores a polite end, and whose parent may be gone: as a job of a Ray head
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
WITH_CHILD = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True).wait()"
)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[dict[str, str]]:
    one = {"GENAI_UP": str(tmp_path)}
    yield one
    end_family(one)


def service(
    mark: dict[str, str], tmp_path: Path, code: str, name: str = "one", kind: type[Started] = Started
) -> Started:
    """Return a service that runs a piece of Python, and is healthy as long as it does."""
    own = {**mark, "GENAI_UP_SERVICE": name}
    log = tmp_path / f"{name}.log"

    def begin() -> subprocess.Popen[bytes]:
        return launch([sys.executable, "-c", code], {**os.environ, **own}, log)

    def healthy() -> bool:
        return made.process is not None and made.process.poll() is None

    made = kind(name, "nowhere", healthy, begin=begin, mark=own, log=log)
    return made


def step_until(one: Service, condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (one.state, one.detail)
        one.step(time.monotonic())
        time.sleep(0.02)


def test_what_dies_is_started_again_and_given_up_after_a_few_tries(
    mark: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "PAUSES_SECONDS", (0.0, 0.0))
    one = service(mark, tmp_path, SLEEP)
    pids = set()
    for number in range(3):
        step_until(one, lambda: one.state is State.READY)
        assert one.process is not None
        pids.add(one.process.pid)
        assert one.detail.partition(";")[0] == ("", "started again 1 time", "started again 2 times")[number]
        one.process.kill()
        step_until(one, lambda: one.state in {State.RESTARTING, State.FAILED})
        assert "ended by signal 9" in one.detail
        assert (
            "try 2 of 3" if number == 0 else "try 3 of 3" if number == 1 else "given up after 3 tries"
        ) in one.detail
    assert len(pids) == 3
    assert one.state is State.FAILED
    one.step(time.monotonic() + 1000)
    assert one.state is State.FAILED


def test_tries_are_forgotten_after_a_steady_while(
    mark: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "PAUSES_SECONDS", (0.0,))
    monkeypatch.setattr(supervise, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(supervise, "STEADY_SECONDS", 0.2)
    one = service(mark, tmp_path, SLEEP)
    for _ in range(3):  # one more than there are tries
        step_until(one, lambda: one.state is State.READY)
        began = time.monotonic()
        step_until(one, lambda began=began: time.monotonic() > began + 0.4)
        assert one.process is not None
        one.process.kill()
        step_until(one, lambda: one.state is not State.READY)
        assert one.state is State.RESTARTING


def test_one_that_never_gets_ready_ends_the_watch(
    mark: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "PAUSES_SECONDS", ())
    one = service(mark, tmp_path, "raise SystemExit('no such port')")
    one.healthy = lambda: False
    other = service(mark, tmp_path, SLEEP, "other")
    watch([one, other], lambda: None, threading.Event())
    assert one.state is State.FAILED
    assert "ended with code 1" in one.detail
    assert tail(one.log) == "no such port"


def test_one_waits_for_those_it_needs(mark: dict[str, str], tmp_path: Path) -> None:
    ready = False
    first = Service("first", "", lambda: ready)
    second = service(mark, tmp_path, SLEEP, "second")
    second.after = (first,)
    for _ in range(3):
        first.step(0.0)
        second.step(0.0)
    assert (first.state, second.state, second.process) == (State.SILENT, State.WAITING, None)
    ready = True
    first.step(time.monotonic())
    step_until(second, lambda: second.state is State.READY)


def test_one_that_lives_and_does_not_answer_is_left_alone(
    mark: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "LOOK_SECONDS", 0.0)
    one = service(mark, tmp_path, SLEEP)
    step_until(one, lambda: one.state is State.READY)
    process = one.process
    one.healthy = lambda: False
    one.step(time.monotonic())
    assert (one.state, one.process) == (State.SILENT, process)
    one.healthy = lambda: True
    one.step(time.monotonic())
    assert one.state is State.READY


@pytest.mark.parametrize("hurried", [False, True])
def test_taking_down_leaves_nothing(
    mark: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurried: bool
) -> None:
    monkeypatch.setattr(supervise, "GRACE_SECONDS", 60.0 if hurried else 1.0)
    services = [service(mark, tmp_path, code, name) for name, code in (("a", SLEEP), ("b", WITH_CHILD))]
    for one in services:
        step_until(one, lambda one=one: one.state is State.READY)
    deadline = time.monotonic() + 10
    while len(family(mark)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    members = family(mark)
    assert len(members) == 3
    hurry = threading.Event()
    if hurried:
        hurry.set()
    began = time.monotonic()
    take_down([services], mark, lambda: None, hurry)
    assert time.monotonic() - began < 5
    assert [one.state for one in services] == [State.STOPPED, State.STOPPED]
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in members)


FLOW = """
import signal, sys, time
def told(*_):
    open(sys.argv[1], "w").write("told")
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("ready", flush=True)
time.sleep(60)
"""
WORKER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {flow!r}, {path!r}], start_new_session=True)
time.sleep(60)
"""


def test_flows_are_told_to_end_before_their_worker_and_outlive_one_that_dies(
    mark: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "PAUSES_SECONDS", (1000.0,))
    said = tmp_path / "said"
    worker = service(mark, tmp_path, WORKER.format(flow=FLOW, path=str(said)), "worker", FlowWorker)
    step_until(worker, lambda: "ready" in tail(worker.log))
    assert worker.process is not None
    worker.process.kill()
    step_until(worker, lambda: worker.state is State.RESTARTING)
    [flow] = family(mark)
    assert flow.is_running()
    take_down([[worker]], mark, lambda: None, threading.Event())
    assert said.read_text() == "told"
    assert not family(mark)


def test_in_a_pipe_a_line_is_printed_when_a_service_changes() -> None:
    out = io.StringIO()
    one, other = Service("prefect", "http://a", lambda: True), Service("ray", "http://b", lambda: False, "not ours: X")
    with Board([one, other], Console(file=out, width=40, highlight=False)) as board:
        board.show()
        board.show()
        for service in (one, other):
            service.step(time.monotonic())
        board.show()
    lines = out.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["prefect", "waiting"],
        ["ray", "waiting"],
        ["prefect", "ready"],
        ["ray", "silent"],
    ]
    assert lines[3].endswith("does not answer; not ours: X"), "longer than the window, and in one line"


def test_on_a_terminal_there_is_one_line_for_each_service() -> None:
    out = io.StringIO()
    one = Service("prefect", "http://a", lambda: True, "with more to say than there is place for " * 5)
    console = Console(file=out, force_terminal=True, width=60)
    with Board([one], console) as board:
        board.show()
        one.step(time.monotonic())
        board.show()
        shown = console.render_lines(board._draw())
    assert len(shown) == 1
    text = "".join(segment.text for segment in shown[0])
    assert text.split()[:3] == ["prefect", "ready", "http://a"]
    assert text.endswith("…")
