"""The embedded launcher: one child process, the job host, owns a local Ray and dies with its flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any, BinaryIO

from genai_core import errors
from genai_core.config.settings import Settings
from genai_core.errors import ClaimLostError, ClusterStartError, StageFailedError, TransientError
from genai_core.launch.quiet import SILENCE
from genai_core.launch.sessions import kill_session
from genai_core.launch.submit import OnRow
from genai_core.storage.claims import Claim

if TYPE_CHECKING:
    from genai_core.stages.contract import StageJob

STOP_GRACE_SECONDS = 60.0
"""A stopped stage writes a checkpoint first; after so long it is killed, and resumes from the one before."""

POLL_SECONDS = 0.2


class EmbeddedLauncher:
    """Starts the job host at the first need; a host that died is started again by the next call."""

    outlives_flow = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._host: subprocess.Popen[bytes] | None = None
        self._events: BinaryIO | None = None
        self._buffer = b""

    def warm_up(self, *, training: bool = False) -> None:
        """Start the host, which imports torch and starts Ray while the flow goes on; the worker of a training, too."""
        if self._host is not None and self._host.poll() is None:
            return
        self._end_host()
        logs = self._settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        with (logs / f"host-{os.getpid()}.log").open("ab") as log:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "genai_core.stages", "host", str(writing), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C must not reach it, and its whole session can be ended at once
                env={**os.environ, **{name: os.environ.get(name, value) for name, value in SILENCE.items()}},
            )
        os.close(writing)
        self._events = os.fdopen(reading, "rb", buffering=0)
        self._buffer = b""
        if training:
            self._send({"type": "expect-training"})

    @property
    def log(self) -> Path:
        """Return the file that holds the host's own output."""
        return self._settings.home / "logs" / f"host-{os.getpid()}.log"

    @property
    def host_pid(self) -> int | None:
        """Return the process id of the running host."""
        return None if self._host is None else self._host.pid

    def run(self, job: StageJob, claim: Claim, *, on_row: OnRow, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Run a job on the host. Raises TransientError if the host dies; the state is kept, so calling again resumes."""
        self.warm_up()
        self._send({"type": "job", "job": job.model_dump(mode="json"), "claim": claim.to_json()})
        stop_sent_at: float | None = None
        try:
            while True:
                for message in self._receive(POLL_SECONDS):
                    match message["type"]:
                        case "journal":
                            on_row(message["row"])
                        case "done":
                            return message
                        case "error":
                            kind = getattr(errors, message["kind"], StageFailedError)
                            raise kind(message["message"] + self._trace_hint(message))
                if stop_sent_at is None and should_stop():
                    self._send({"type": "stop"})
                    stop_sent_at = time.monotonic()
                if stop_sent_at is not None and time.monotonic() - stop_sent_at > STOP_GRACE_SECONDS:
                    self._end_host()
                    raise errors.InterruptedRunError(
                        f"{job.title} did not stop in time and was killed; run again to resume."
                    )
        except (KeyboardInterrupt, SystemExit):
            self._end_host()
            raise
        except BaseException as error:
            # a host that lost its claim is ending itself; one without Ray would only say so again; not an Exception:
            # Prefect's TerminationSignal, a cancelled run
            if isinstance(error, (ClaimLostError, ClusterStartError)) or not isinstance(error, Exception):
                self._end_host()
            raise

    def close(self) -> None:
        """End the host and its Ray."""
        self._end_host()

    def _trace_hint(self, message: dict[str, Any]) -> str:
        return f"\n{message['trace']}" if os.environ.get("GENAI_DEBUG") and message.get("trace") else ""

    def _send(self, message: dict[str, Any]) -> None:
        assert self._host is not None and self._host.stdin is not None
        try:
            self._host.stdin.write(json.dumps(message).encode() + b"\n")
            self._host.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error

    def _receive(self, seconds: float) -> list[dict[str, Any]]:
        """Return the messages that arrived within so many seconds."""
        assert self._events is not None
        ready, _, _ = select([self._events], [], [], seconds)
        if not ready:
            if self._host is not None and self._host.poll() is not None:
                raise self._death()
            return []
        data = self._events.read(1 << 16)
        if not data:
            raise self._death()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def _death(self) -> TransientError:
        code = self._host.wait() if self._host is not None else None
        self._end_host()
        cause = "killed, perhaps for want of memory" if code in (-9, 137) else f"exit code {code}"
        return TransientError(f"The job host died ({cause}). Its output is in {self.log}.")

    def _end_host(self) -> None:
        host, self._host = self._host, None
        if host is None:
            return
        kill_session(host.pid)
        host.wait()
        if host.stdin is not None:
            with suppress(BrokenPipeError):  # nobody is there to read the rest
                host.stdin.close()
        if self._events is not None:
            self._events.close()
            self._events = None
