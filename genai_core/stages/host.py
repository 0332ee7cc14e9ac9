"""The job host: one process per flow that owns a local Ray and runs stage jobs one after another.

Imports and Ray are paid once, and the flow process loads neither. Jobs come as JSON lines on standard input:

    {"type": "job", "job": {...}, "claim": {...}}      run it
    {"type": "stop"}                                   stop the running job at its next good point
    {"type": "expect-training"}                        a job that trains will come: let its worker start

and events leave as JSON lines on a pipe of their own (standard output belongs to foreign libraries):

    {"type": "ready"} | {"type": "journal", "row": {...}} | {"type": "done", "artifact": ...} | {"type": "error", ...}

End of input means that the flow has died: the host's whole session goes with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, BinaryIO

from genai_core.config.settings import read_settings
from genai_core.errors import ClaimLostError, ClusterStartError, GenaiCoreError
from genai_core.launch.cluster import connect_ray
from genai_core.launch.quiet import silence
from genai_core.launch.sessions import kill_session
from genai_core.launch.workers import RayWorkers
from genai_core.stages.contract import StageJob
from genai_core.stages.entry import StopSignal, encode, run_job
from genai_core.storage.artifact import ArtifactKind

PR_SET_PDEATHSIG = 1
TRAINING_IMPORTS = ("transformers.models.llama.modeling_llama", "genai_core.training.worker")


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the flow process dies, also by SIGKILL."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: end_session())
    if os.getppid() != parent:
        end_session()


def end_session() -> None:
    """Kill this process and everything that it started, Ray included: a local Ray without its flow is waste."""
    if os.getsid(0) == os.getpid():
        kill_session(os.getpid())
    os._exit(1)


def log_trace() -> None:
    """Keep, in the log beside the home, what a message leaves out; a disk too full for it must not hide the message."""
    with suppress(OSError):
        traceback.print_exc()


class Host:
    """Reads jobs, runs them one after another, writes events."""

    def __init__(self, events: BinaryIO) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._stop = StopSignal(threading.Event())
        self._workers = RayWorkers()
        self._ray_ready = threading.Event()
        self._ray_error: Exception | None = None
        self._importing = threading.Thread(target=self.import_slow, daemon=True, name="import")

    def emit(self, message: dict[str, Any]) -> None:
        """Write one event. If nobody reads any more, the flow is gone and so are we."""
        try:
            with self._lock:
                self._events.write(encode(message))
                self._events.flush()
        except (BrokenPipeError, ValueError):
            end_session()

    def abandon(self, error: ClaimLostError) -> None:
        """Tell the flow that another attempt has taken the stage over, and end: its workers and ours share a workspace."""
        self.emit({"type": "error", "kind": type(error).__name__, "message": str(error)})
        end_session()

    def listen(self) -> None:
        """Read messages until the input ends, then end the whole session."""
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if message["type"] == "stop":
                self._stop.ask()
            elif message["type"] == "expect-training":
                self.begin_training_worker()
            elif message["type"] == "close":
                self._jobs.put(None)
            else:
                self._jobs.put(message)
        end_session()

    def hold_ray(self) -> None:
        """Start Ray and stay: the kernel kills Ray's processes when the thread that started them ends."""
        try:
            connect_ray()
        except Exception as error:
            self._ray_error = error
        self._ray_ready.set()
        threading.Event().wait()

    def import_slow(self) -> None:
        """Pay for the slowest import while the first job is still being prepared.

        Torch only: transformers puts another module into its place when it has been imported, and a thread that asks
        for it meanwhile is left with the unfinished one ("cannot import name ... from 'transformers'").
        """
        import torch

        self.emit({"type": "ready", "torch": torch.__version__})

    def begin_training_worker(self) -> None:
        """Have the worker that trainings will run on started: it imports while something else is done."""
        threading.Thread(target=self._prepare_training_worker, daemon=True, name="prepare").start()

    def _prepare_training_worker(self) -> None:
        self._ray_ready.wait()
        if self._ray_error is None:
            self._workers.prepare(TRAINING_IMPORTS)

    def await_warm(self, kind: ArtifactKind) -> None:
        """Return when Ray and the imports are there. Raises ClusterStartError if Ray did not start."""
        self._importing.join()
        if kind is not ArtifactKind.MODEL:  # a training imports in its worker, which wants the processor meanwhile
            import transformers.models.llama.modeling_llama  # noqa: F401 (while Ray is still starting)

        self._ray_ready.wait()
        if self._ray_error is not None:
            raise ClusterStartError(
                f"Ray did not start: {self._ray_error} If this stays so, other programs may leave it too little of the machine "
                "(genai doctor)."
            ) from self._ray_error

    def run(self) -> None:
        """Run jobs until told to close."""
        threading.Thread(target=self.listen, daemon=True, name="listen").start()
        threading.Thread(target=self.hold_ray, daemon=True, name="ray").start()
        self._importing.start()
        settings = read_settings()
        while (message := self._jobs.get()) is not None:
            self._stop.event.clear()
            try:
                job = StageJob.model_validate(message["job"])
                if job.stage == "augment" or job.kind is ArtifactKind.MODEL:
                    self.begin_training_worker()
                if job.stage != "augment":  # text preparation needs neither torch nor Ray: it need not wait for them
                    self.await_warm(job.kind)
                outcome = run_job(
                    job, message["claim"], settings, self._workers.serve, self.emit, self._stop, self.abandon
                )
                self.emit({"type": "done", **outcome})
            except GenaiCoreError as error:
                log_trace()
                self.emit({"type": "error", "kind": type(error).__name__, "message": str(error)})
            except Exception as error:
                log_trace()
                self.emit(
                    {
                        "type": "error",
                        "kind": "StageFailedError",
                        "message": f"{type(error).__name__}: {error}",
                        "trace": traceback.format_exc(),
                    }
                )
        end_session()


def host_main(events_fd: int, parent: int) -> None:
    """Run the job host on an inherited pipe."""
    silence()
    die_with_parent(parent)
    # Ctrl-C belongs to the flow process, which then asks for a stop in words.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Host(os.fdopen(events_fd, "wb", buffering=0)).run()
