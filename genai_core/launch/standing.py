"""A Ray Train worker that stays: the trainings of a flow share one group, so its start and its imports are paid once.

A group of one worker needs no rendezvous. Its training function is a loop that takes orders out of a folder, one file
at a time, and leaves an outcome in the folder of each. A worker that is lost is replaced by Ray Train, finds the order
that has no outcome, and runs it again: the function resumes itself, as it does in a group of its own.

    order.json      {"function", "arguments", "folder", "max_failures"}: to be done while it is there
    attempts        one byte for each time that the order was begun
    failure.txt     why the last attempt failed
    end             no more orders
"""

from __future__ import annotations

import gc
import importlib
import json
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genai_core.errors import TransientError
from genai_core.launch.outcome import OUTCOME, first_line, leave_outcome, raise_outcome, run_on_worker

POLL_SECONDS = 0.02
END_SECONDS = 10.0


def serve_trainings(settings: dict[str, Any]) -> None:
    """Run orders until told to end; runs inside a Ray Train worker. An exception makes Ray Train replace this worker."""
    desk = Path(settings["desk"])
    for module in settings["imports"]:
        importlib.import_module(module)
    while desk.exists() and not (desk / "end").exists():
        try:
            order = json.loads((desk / "order.json").read_text())
        except FileNotFoundError:
            time.sleep(POLL_SECONDS)
            continue
        if (Path(order["folder"]) / OUTCOME).exists():  # and is about to be fetched
            time.sleep(POLL_SECONDS)
            continue
        with (desk / "attempts").open("ab") as attempts:
            attempts.write(b".")
            begun = attempts.tell()
        if begun > order["max_failures"] + 1:
            why = (desk / "failure.txt").read_text() if (desk / "failure.txt").exists() else "it was killed each time"
            message = f"Training failed on its worker {begun - 1} times: {first_line(why)}"
            try:
                leave_outcome(
                    Path(order["folder"]), {"status": "error", "kind": "StageFailedError", "message": message}
                )
            except OSError:
                return  # it cannot be told in the folder, but the driver sees that the group has ended
            continue
        try:
            run_on_worker(order)
        except BaseException:
            (desk / "failure.txt").write_text(traceback.format_exc())
            raise
        gc.collect()  # a model's parts hold one another, and what comes next wants the memory


class StandingWorker:
    """One worker of Ray Train for many trainings, on the Ray of this machine that this process is connected to."""

    def __init__(self, imports: Sequence[str] = ()) -> None:
        """Start it; returns at once. `imports` are loaded before the first order comes."""
        import ray._private.worker
        import ray.train
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        class Trainer(DataParallelTrainer):
            def _register_sigint_handler(self, controller: Any) -> None:
                """Leave SIGINT alone: it can only be taken in the main thread, and a stop goes through a file."""

        node: Any = ray._private.worker._global_node
        # in Ray's folder of this session: it goes when Ray's goes, however the host ends
        self._desk = Path(tempfile.mkdtemp(prefix="standing-", dir=node.get_session_dir_path()))
        self._error: BaseException | None = None
        rt: Any = ray.train  # its classes are swapped at import for Ray Train V2's, which a type checker does not see
        self._trainer = Trainer(
            serve_trainings,
            train_loop_config={"desk": str(self._desk), "imports": list(imports)},
            scaling_config=rt.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=rt.RunConfig(
                name="standing",
                storage_path=str(self._desk / "ray"),
                failure_config=rt.FailureConfig(
                    max_failures=-1, controller_failure_limit=3
                ),  # each order counts its own
                logging_config=rt.LoggingConfig(log_level="ERROR"),
            ),
        )
        self._thread = threading.Thread(target=self._fit, daemon=True, name="standing-worker")
        self._thread.start()

    @property
    def lives(self) -> bool:
        """Return whether orders are taken."""
        return self._thread.is_alive()

    def train(self, function: str, arguments: dict[str, Any], folder: Path, max_failures: int) -> None:
        """Run `function(arguments)` on the worker; `folder` is the training's own.

        Raises:
            StageFailedError: it failed more than max_failures times.
            TransientError: Ray lost the group.
            GenaiCoreError: what the function raised.
        """
        for name in ("attempts", "failure.txt"):
            (self._desk / name).unlink(missing_ok=True)
        order = {"function": function, "arguments": arguments, "folder": str(folder), "max_failures": max_failures}
        draft = self._desk / "order.part"
        draft.write_text(json.dumps(order))
        draft.rename(self._desk / "order.json")
        try:
            while not (folder / OUTCOME).exists():
                if not self.lives:
                    raise TransientError(f"Ray's training group ended: {first_line(self._error or 'nobody knows why')}")
                time.sleep(POLL_SECONDS)
        finally:
            (self._desk / "order.json").unlink(missing_ok=True)  # before the outcome goes, or it would be done again
        raise_outcome(folder)

    def end(self) -> None:
        """Let the worker go, after the order it may be at."""
        (self._desk / "end").touch()
        self._thread.join(END_SECONDS)
        shutil.rmtree(self._desk, ignore_errors=True)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._error = error
