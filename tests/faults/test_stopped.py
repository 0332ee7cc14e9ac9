"""SIGINT and SIGTERM, and a run that slept (SIGSTOP) while another took its claim over."""

from __future__ import annotations

import signal
import time

import pytest
from fault_runs import CHECKPOINT_EVERY, Home, RunningFlow, checkpoint_steps, kill, moments, wait_for
from test_killed_training import GONE_WITHIN_SECONDS, check_same

pytestmark = pytest.mark.faults

SHORT = {"GENAI_STALE_CLAIM_SECONDS": "4", "GENAI_HEARTBEAT_SECONDS": "0.5"}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_interrupted(home: Home, unbroken: Home, sent: signal.Signals) -> None:
    """A person's SIGINT or a system's SIGTERM ends the run with 130 and a checkpoint of that very step; the rerun resumes."""
    [(step, after)] = moments(sent.name, [(6, 24)])
    with home.start("pretraining") as running:
        running.await_step(step, after)
        began = time.monotonic()
        running.process.send_signal(sent)
        running.end(130)
        print(f"  stopped {time.monotonic() - began:.1f} s after the signal")
        running.await_nothing_left(GONE_WITHIN_SECONDS)
    report = running.report()
    assert report["status"] == "interrupted"
    assert (report["stages"][-1]["name"], report["stages"][-1]["status"]) == ("pretrain", "interrupted")
    assert "Run again to resume" in running.output
    assert [run.info.status for run in home.stage_runs("pretrain")] == ["KILLED"]
    stopped_at = home.step()
    assert step <= stopped_at < 30
    assert checkpoint_steps(home)[-1] == stopped_at
    again = home.run("pretraining")
    assert f"resumed at step {stopped_at}" in again.output
    print(f"  resumed at step {stopped_at}")
    check_same(home, unbroken)


def suspend(running: RunningFlow, number: signal.Signals) -> None:
    """Stop or wake the flow and everything in its host's session."""
    for process in [*running.session(), running.flow]:
        kill(process, number)


@pytest.mark.parametrize("wakes", ["after the other has finished", "while the other trains"])
def test_woken_after_takeover(home: Home, unbroken: Home, wakes: str) -> None:
    """It publishes nothing, spoils nothing of the other's, and ends by reusing what the other has published."""
    [(step, after)] = moments(f"SIGSTOP {wakes}", [(CHECKPOINT_EVERY + 1, 12)])
    with home.start("pretraining", **SHORT) as first:
        first.await_step(step, after)
        host = first.host().pid
        suspend(first, signal.SIGSTOP)
        asleep_at = home.step()
        with home.start("pretraining", **SHORT) as second:
            if wakes == "while the other trains":
                wait_for("the other's training", lambda: home.step() >= asleep_at + 2)
                suspend(first, signal.SIGCONT)
                second.end(0)
            else:
                second.end(0)
                suspend(first, signal.SIGCONT)
            code = first.end(0, 1)
        first.await_nothing_left(GONE_WITHIN_SECONDS)
    manifest = home.manifests()["pretrain"]
    print(f"  asleep at step {asleep_at}; the first ended with {code}: {first.statuses()}")
    assert manifest["told"]["attempt"] == 2
    assert second.statuses()["pretrain"] == "computed"
    assert first.statuses()["pretrain"] in {"reused", "failed"}
    assert f"process {host}" not in second.output  # what is told of the holder is the flow, who acquired the claim
    check_same(home, unbroken)
