"""What a stage's body is given and what it gives back.

body(config, context) -> StageResult        files written into context.output are published when it returns
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.compute import ComputeConfig
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal


class StageJob(Config):
    """Everything one entry point needs to run a stage anywhere, as JSON."""

    stage: str = Field(description="Name in the stage registry, such as 'pretrain'.")
    title: str = Field(description="Name in tables and runs; generations have numbers, such as 'synthesize-g1'.")
    key: str = Field(description="Stage key, hexadecimal.")
    attempt: int = Field(description="Attempt number of the claim under which this job runs.")
    kind: ArtifactKind = Field(description="What is published.")
    name: str = Field(description="Name of the artifact.")
    config: dict[str, Any] = Field(description="The stage's config, as validated JSON.")
    inputs: dict[str, ArtifactRef] = Field(description="References to the inputs, by role.")
    compute: ComputeConfig = Field(description="Resources; not part of the identity.")
    storage_uri: str = Field(description="The artifact store.")
    tracking_uri: str = Field(default="", description="MLflow; '' = no tracking.")
    experiment: str = Field(default="genai", description="MLflow experiment.")
    parent_run_id: str = Field(default="", description="MLflow run of the flow.")
    tags: dict[str, str] = Field(default={}, description="Tags of the MLflow run: flow run, commit.")


@dataclass(frozen=True)
class StageResult:
    """What a body returns beside the files it wrote."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Key figures of the stage: deterministic, shown in the table and logged to MLflow."""

    told: Mapping[str, Any] = field(default_factory=dict)
    """Figures of this very attempt (seconds, tokens per second, memory): kept beside the digest, never in it."""


class Workers(Protocol):
    """The Ray side, as a body sees it; implemented in `launch`."""

    def train(
        self,
        function: Callable[[dict[str, Any]], None],
        arguments: dict[str, Any],
        *,
        world_size: int,
        threads: int,
        min_workers: int = 0,
    ) -> None:
        """Run `function(arguments)` on every worker of a Ray Train group; lost workers are replaced.

        `function` must be importable by name. It keeps its own checkpoints in the workspace and returns nothing: what
        it makes, rank 0 leaves as files. With `min_workers` it is begun again with fewer workers where nodes are lost, and
        with more when they are back, `world_size` at most. Raises StageFailedError with the worker's error.
        """
        ...

    def map_shards(
        self,
        function: Callable[[dict[str, Any], list[Any]], list[Any]],
        arguments: dict[str, Any],
        rows: Sequence[Any],
        *,
        name: str,
        shard_rows: int,
        workers: int,
        threads: int,
    ) -> list[Any]:
        """Return `function(arguments, shard)` over fixed shards of JSON rows, concatenated in row order.

        A finished shard is written to the workspace (`shards/<name>/00012.jsonl`, atomically) and never made again.
        `function` returns a list of JSON rows; it is called in worker processes that live across shards, so it may
        keep a loaded model in a module-level cache keyed by its path.
        """
        ...


@dataclass
class StageContext:
    """What surrounds a body while it runs."""

    job: StageJob
    inputs: Mapping[str, Path]
    """Local, verified directories of the inputs, by role. Read only. A source that is not a path has none."""

    output: Path
    """An empty directory; everything in it is published when the body returns. Write nothing that depends on time."""

    workspace: Workspace
    """Unfinished state of this key: checkpoints, plan.json, finished shards. Survives a crash, removed after publishing."""

    journal: Journal
    """Metrics by step, progress and events; durable, shipped to MLflow and to the screen by the driver."""

    workers: Workers
    check: Callable[[], None]
    """Call between units of work: raises ClaimLostError or InterruptedRunError when this attempt must stop."""

    @property
    def refs(self) -> Mapping[str, ArtifactRef]:
        """References to the inputs, by role."""
        return self.job.inputs


def rows_of(parts: Iterable[Sequence[Any]]) -> list[Any]:
    """Return the rows of all parts in one list."""
    return [row for part in parts for row in part]
