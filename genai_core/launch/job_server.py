"""The job server of a Ray cluster, which may be away for a while: a head that dies is started again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from genai_core.errors import ConfigError, InterruptedRunError, TransientError
from genai_core.launch.quiet import silence

log = logging.getLogger(__name__)

JOB_PREFIX = "genai-"
AWAY_SECONDS = 120.0
"""How long it is waited for: starting a head again takes a container half a minute."""

REQUEST_SECONDS = 60.0
"""Ray's own client waits for an answer for ever; a machine that is gone sends none, not even a refusal."""

_PAUSE_SECONDS = 1.0


class JobServer:
    """Ray's client of a job server, asked until it answers."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client: Any = None

    def ask(
        self,
        method: str,
        *args: Any,
        seconds: float = 0.0,
        should_stop: Callable[[], bool] = lambda: False,
        **given: Any,
    ) -> Any:
        """Return what a method of Ray's JobSubmissionClient answers; None where it knows no such job.

        Args:
            method: name of the method; the rest is handed to it.
            seconds: how long to ask again where nothing answers; 0: once.
            should_stop: asked meanwhile.

        Raises TransientError where nothing has answered, ConfigError where it denies access or is no job server,
        InterruptedRunError where it was told to stop.
        """
        deadline = 0.0
        while True:
            try:
                return getattr(self._connect(), method)(*args, **given)
            except RuntimeError as error:  # it has answered, but not with success
                if "status code 404" in str(error) or "does not exist" in str(error):
                    return None
                problem = f"failed: {error}"
                cause: Exception = error
            except OSError as error:  # requests' errors are, too
                problem = "does not answer."
                cause = error
            deadline = deadline or time.monotonic() + seconds
            if time.monotonic() >= deadline:
                raise TransientError(f"The Ray job server at {self.address} {problem}") from cause
            if should_stop():
                raise InterruptedRunError(f"Stopped while the Ray job server at {self.address} did not answer.")
            log.warning("the Ray job server at %s %s Asking again.", self.address, problem)
            time.sleep(_PAUSE_SECONDS)

    def _connect(self) -> Any:
        """Return the client; raise OSError where nothing answers yet."""
        if self._client is None:
            silence()
            from ray.exceptions import AuthenticationError
            from ray.job_submission import JobSubmissionClient

            address = self.address

            class Client(JobSubmissionClient):
                """Ray's, with an end to its patience, and with an error that says what to do."""

                def _do_request(self, *args: Any, **given: Any) -> Any:
                    try:
                        return super()._do_request(*args, **{"timeout": REQUEST_SECONDS, **given})
                    except AuthenticationError as error:
                        raise ConfigError(
                            f"The Ray job server at {address} denies access. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to "
                            "the cluster's token."
                        ) from error

            try:
                self._client = Client(address)
            except (RuntimeError, ValueError) as error:
                raise ConfigError(f"compute.ray_address={address!r} is not a Ray job server: {error}") from error
        return self._client
