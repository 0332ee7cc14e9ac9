"""How a task hands a stage job over: the one thing of Ray that tasks know, and it imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from genai_core.config.settings import Settings
from genai_core.storage.claims import Claim

if TYPE_CHECKING:
    from genai_core.stages.contract import StageJob

OnRow = Callable[[dict[str, Any]], None]
"""Called with journal rows: metrics, progress, events."""


class Launcher(Protocol):
    """Runs stage jobs somewhere."""

    outlives_flow: bool
    """Whether a job goes on when the flow process dies."""

    def run(self, job: StageJob, claim: Claim, *, on_row: OnRow, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Return {"artifact", "metrics", "told"} of a job. Raises what the job raised, by class."""
        ...

    def warm_up(self, *, training: bool = False) -> None:
        """Start what takes long to start, without waiting for it; also what trains, if a training is to come."""
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


def open_launcher(ray_address: str, settings: Settings, *, check: bool = True) -> Launcher:
    """Return the launcher for a Ray cluster's job server, or for a local Ray when the address is empty.

    With `check`, a job server that does not answer is an error at once; without, its first stage waits for it.
    """
    if ray_address:
        from genai_core.launch.jobs import JobsLauncher

        return JobsLauncher(ray_address, settings, check=check)
    from genai_core.launch.embedded import EmbeddedLauncher

    return EmbeddedLauncher(settings)
