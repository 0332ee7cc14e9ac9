"""What a training function leaves for the driver: a file. Nothing lives in Ray's own checkpoints or return values."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genai_core import errors
from genai_core.errors import GenaiCoreError, StageFailedError, TransientError

OUTCOME = "outcome.json"
"""Written by rank 0 when the function has ended, in the training's folder."""

ROOM_BYTES = 8192


def name_of(function: Callable[..., Any]) -> str:
    """Return `module:function`, by which a worker imports it."""
    return f"{function.__module__}:{function.__qualname__}"


def load(name: str) -> Callable[..., Any]:
    """Return the function of a `module:function` name."""
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def run_on_worker(settings: dict[str, Any]) -> None:
    """Run the training function on one rank; runs inside a Ray Train worker.

    Ray Train restarts the group for every exception, also for one that would come again. So an error of ours that a
    retry cannot mend is written down and the worker returns; the driver raises it.
    """
    import ray.train

    folder = Path(settings["folder"])
    if not (_draft(folder).exists() or (folder / OUTCOME).exists()):
        # at once: by an error of ours this rank would end, and the others wait for it
        raise FileNotFoundError(f"{folder} of the driver's node is not seen on this one.")
    result = {"status": "done"}
    try:
        load(settings["function"])(settings["arguments"])
    except TransientError:
        raise
    except GenaiCoreError as error:
        result = {"status": "error", "kind": type(error).__name__, "message": str(error)}
    if ray.train.get_context().get_world_rank() == 0:
        leave_outcome(folder, result)


def make_room_for_outcome(folder: Path) -> None:
    """Take the space that an outcome will need, and remove an earlier one: a worker must be able to say that the disk is full.

    Raises:
        OSError: it is full already.
    """
    (folder / OUTCOME).unlink(missing_ok=True)
    _draft(folder).write_bytes(b" " * ROOM_BYTES)


def leave_outcome(folder: Path, result: Mapping[str, str]) -> None:
    """Write an outcome into a training's folder, whole or not at all, over the room that was made for it."""
    draft = _draft(folder)
    with draft.open("r+b" if draft.exists() else "wb") as handle:  # not truncated: its blocks would be another's
        handle.write(json.dumps(result).encode().ljust(ROOM_BYTES))
    draft.rename(folder / OUTCOME)


def _draft(folder: Path) -> Path:
    return (folder / OUTCOME).with_suffix(".part")


def raise_outcome(folder: Path) -> None:
    """Raise the error that rank 0 wrote down, if any."""
    outcome = folder / OUTCOME
    if not outcome.exists():
        raise StageFailedError("The training workers ended without an outcome. Run again to resume.")
    result = json.loads(outcome.read_text())
    if result["status"] == "error":
        raise getattr(errors, result["kind"], StageFailedError)(result["message"])


def first_line(error: BaseException | str) -> str:
    """Return what a person needs of a foreign error: the last line of its text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
