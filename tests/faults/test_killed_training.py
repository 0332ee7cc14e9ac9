"""SIGKILL of the flow, of the job host, of a Ray Train worker, in the middle of pre-training: nothing is lost or doubled.

Each is killed at three random moments. Afterwards every byte of what is published is that of the unbroken run, and the
MLflow history of the stage has one value for every step.
"""

from __future__ import annotations

import pytest
from fault_runs import STEPS, Home, await_session_end, checkpoint_steps, kill, moments, steps_to, wait_for

pytestmark = pytest.mark.faults

RANGES = [(1, 9), (11, 19), (21, 28)]
"""Steps of the three moments; a checkpoint lies between any two of them."""

GONE_WITHIN_SECONDS = 10.0


def check_same(home: Home, unbroken: Home) -> None:
    """Check that a home holds the bytes of the unbroken run, and one whole MLflow history of its pre-training."""
    assert home.published() == unbroken.published()
    [run] = home.stage_runs("pretrain")
    assert run.info.status == "FINISHED"
    history = home.history("pretrain")
    assert set(history) == set(unbroken.history("pretrain"))
    for name in ("train/loss", "train/grad_norm", "train/learning_rate", "train/tokens_seen"):
        assert history[name] == steps_to(STEPS), name
    assert history["eval/loss_nats"] == steps_to(STEPS, 10)
    for name, steps in history.items():
        assert len(steps) == len(set(steps)), f"{name} has doubles: {steps}"
    # the machine's own figures are taken by the clock: a run that was killed, or waited for a core, has more of them
    assert by_step(history) == by_step(unbroken.history("pretrain"))
    assert home.workspace("pretrain") is None, "unfinished state is left behind"


def by_step(history: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the curves that a step of the training has drawn."""
    return {name: steps for name, steps in history.items() if not name.startswith("system/")}


def test_killed_flow(home: Home, unbroken: Home) -> None:
    """The flow is killed three times, at a later step each time; its host and its Ray die with it."""
    resumed = []
    for step, after in moments("flow", RANGES):
        with home.start("pretraining") as running:
            running.await_step(step, after)
            running.process.kill()
            seconds = running.await_nothing_left(GONE_WITHIN_SECONDS)
            print(f"  killed at step {home.step()}; all its processes were gone after {seconds:.1f} s")
            assert "Traceback" not in running.output
        resumed.append(checkpoint_steps(home)[-1])
    with home.start("pretraining") as running:
        running.end(0)
        running.await_nothing_left(GONE_WITHIN_SECONDS)
    print(f"  resumed from steps {resumed}")
    assert f"resumed at step {resumed[-1]}" in running.output
    assert running.statuses() == {"augment": "reused", "pretrain": "computed"}
    assert home.manifests()["pretrain"]["told"]["attempt"] == 4
    check_same(home, unbroken)


def test_killed_host(home: Home, unbroken: Home) -> None:
    """The job host is killed three times under one flow, which starts another each time."""
    with home.start("pretraining") as running:
        for step, after in moments("job host", RANGES):
            running.await_step(step, after)
            host = running.host()
            kill(host)
            print(f"  killed {host.pid} at step {home.step()}")
            await_session_end(host.pid, GONE_WITHIN_SECONDS)
        running.end(0)
        running.await_nothing_left(GONE_WITHIN_SECONDS)
    print("  " + str([line.strip() for line in running.output.splitlines() if "resumed" in line]))
    assert running.output.count("resumed at step") == 3
    assert home.manifests()["pretrain"]["told"]["attempt"] == 4
    check_same(home, unbroken)


def test_killed_worker(home: Home, unbroken: Home) -> None:
    """The Ray Train worker is killed three times under one job; Ray Train replaces it, the flow notices nothing."""
    with home.start("pretraining") as running:
        host = running.host()
        for step, after in moments("Ray Train worker", RANGES):
            running.await_step(step, after)
            [worker] = running.workers()
            kill(worker)
            print(f"  killed {worker.pid} at step {home.step()}")
        running.end(0)
    print("  " + str([line.strip() for line in running.output.splitlines() if "resumed" in line]))
    assert running.output.count("resumed at step") == 3
    assert not host.is_running()
    assert home.manifests()["pretrain"]["told"]["attempt"] == 1
    check_same(home, unbroken)


def test_killed_between_publishing_and_saying_so(home: Home, unbroken: Home) -> None:
    """The artifact is there, its MLflow run is not finished: the rerun reuses the one and finishes the other."""
    with home.start("pretraining") as running:
        running.await_step(1)
        wait_for("the manifest", lambda: "pretrain" in home.manifests(), every=0.005)
        running.process.kill()
        running.await_nothing_left(GONE_WITHIN_SECONDS)
    print(f"  killed with the stage's MLflow run {[run.info.status for run in home.stage_runs('pretrain')]}")
    again = home.run("pretraining")
    assert again.statuses() == {"augment": "reused", "pretrain": "reused"}
    check_same(home, unbroken)
