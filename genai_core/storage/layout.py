"""Where things lie in a store: the one place that knows the paths.

artifacts/<key>/a<attempt>/...         files of a published (or abandoned) attempt
artifacts/<key>/manifest.json          what is published for the key; what has none does not exist
retired/<key>-<attempt>.json           manifests that were discarded; the attempt can never be published again
claims/<key>/000001.json               the log of who computes the key
claims/<key>/heartbeat-<attempt>       a counter that moves while the holder lives
work/<key>/...                         unfinished state
jobs/<name>.json, .outcome.json        what a job of a cluster computes, and what came of it
runs/<time>-<id>.json, pins/<key>      roots of the garbage collection
"""

from __future__ import annotations

ARTIFACTS = "artifacts/"
CLAIMS = "claims/"
RETIRED = "retired/"
WORK = "work/"
RUNS = "runs/"
PINS = "pins/"


def manifest_path(key: str) -> str:
    """Return the path of a key's manifest."""
    return f"artifacts/{key}/manifest.json"


def attempt_path(key: str, base: str) -> str:
    """Return the folder of one attempt's files; `base` is 'a1' of attempt 1."""
    return f"artifacts/{key}/{base}"


def retired_path(key: str, attempt: int) -> str:
    """Return where the manifest of a discarded attempt is kept."""
    return f"retired/{key}-{attempt}.json"


def record_path(key: str, sequence: int) -> str:
    """Return the path of one record of a key's claim log; the first has sequence 1."""
    return f"claims/{key}/{sequence:06d}.json"


def heartbeat_path(key: str, attempt: int) -> str:
    """Return the path of an attempt's heartbeat."""
    return f"claims/{key}/heartbeat-{attempt}"


def pin_path(key: str) -> str:
    """Return the path of a key's pin."""
    return f"pins/{key}"


def job_message_path(name: str) -> str:
    """Return the path of what a cluster's job computes, and for which flow run: the last that came to wait for it."""
    return f"jobs/{name}.json"


def job_outcome_path(name: str) -> str:
    """Return the path of what came of a cluster's job."""
    return f"jobs/{name}.outcome.json"
