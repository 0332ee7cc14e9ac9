"""Where and how fast things run. Nothing here defines a result, so nothing here enters a stage key."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config, NonNegativeFloat, NonNegativeInt, PositiveInt


class ComputeConfig(Config):
    """Resources of the stage jobs. 0 and 'auto' are resolved once into plan.json beside the stage's state."""

    workers: NonNegativeInt = Field(
        default=0, le=65_536, description="Ray Train workers; 0 = one per GPU, or one on a CPU machine."
    )
    min_workers: NonNegativeInt = Field(
        default=0,
        le=65_536,
        description="Workers that a training goes on with at least when nodes are lost, and grows from when they are "
        "back; 0 = it waits for all of `workers`. Another number of workers gives other last digits.",
    )
    threads: NonNegativeInt = Field(
        default=0, le=4_096, description="Torch threads per worker; 0 = all cores shared by the workers."
    )
    micro_batch_rows: NonNegativeInt = Field(
        default=0, le=1_048_576, description="Packed rows of one forward pass; 0 = measured."
    )
    precision: Literal["auto", "float32", "bfloat16", "float64"] = Field(
        default="auto", description="Compute precision of training; auto = measured; weights stay float32."
    )
    sharding: Literal["none", "fully_shard"] = Field(
        default="none",
        description="'fully_shard': weights, gradients and moments are cut over the workers (FSDP2); 'none': each has all.",
    )
    tensor_parallel: PositiveInt = Field(
        default=1,
        le=65_536,
        description="Neighbouring workers that share the matrices of every layer (tensor parallelism).",
    )
    pipeline_stages: PositiveInt = Field(
        default=1,
        le=1_024,
        description="Neighbouring workers that hold the layers one after another (a 1F1B pipeline).",
    )
    context_parallel: PositiveInt = Field(
        default=1,
        le=65_536,
        description="Neighbouring workers that share the tokens of every row (context parallelism).",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Compute the inside of each layer again in the backward pass: less memory, a third more work.",
    )
    generation_workers: NonNegativeInt = Field(
        default=0, le=65_536, description="Ray workers for generation; 0 = as training."
    )
    shard_rows: PositiveInt = Field(
        default=64, description="Prompts of one generation shard; a finished shard is kept through a crash."
    )
    max_failures: NonNegativeInt = Field(
        default=3, description="Lost workers that Ray Train replaces before the job fails."
    )
    max_hours: NonNegativeFloat = Field(
        default=0.0,
        description="Hours after which a run stops at its next good point, to be resumed; 0 = it may take any time.",
    )
    ray_address: str = Field(
        default="",
        description="Job server of a Ray cluster, as http://host:8265; '' = GENAI_RAY_ADDRESS, else a local Ray.",
    )
    ship_code: bool = Field(
        default=False,
        description="Send genai_core with the jobs of a Ray cluster, whose machines then need its libraries only; "
        "false = they run the copy that they have.",
    )

    @model_validator(mode="after")
    def _share_in_one_way(self) -> ComputeConfig:
        ways = [f"{name}={size}" for name, size in self._teams().items() if size > 1]
        if self.sharding != "none":
            ways.append(f"sharding='{self.sharding}'")
        if len(ways) > 1:
            raise ValueError(
                f"{' and '.join(ways)} share a model or a row in two ways at once. Keep one of them; each goes with workers that "
                "take different rows."
            )
        if self.workers % self.team_size():
            raise ValueError(
                f"workers={self.workers} do not form teams of {self.team_size()} ({ways[0]}). Set workers to a multiple."
            )
        return self

    @model_validator(mode="after")
    def _go_on_with_fewer(self) -> ComputeConfig:
        if not self.min_workers:
            return self
        if self.min_workers > self.workers:
            raise ValueError(
                f"min_workers={self.min_workers} is above workers={self.workers}, which is the most that there may be. "
                "Set workers, or min_workers=0."
            )
        if self.team_size() > 1:
            raise ValueError(
                f"min_workers={self.min_workers} lets any number of workers go on, and teams of {self.team_size()} need "
                "multiples of it. Set min_workers=0."
            )
        return self

    def _teams(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("tensor_parallel", "pipeline_stages", "context_parallel")}

    def team_size(self) -> int:
        """Return how many workers work on the same rows."""
        return max(self._teams().values())

    def cut_by(self) -> tuple[str, str] | None:
        """Return which key cuts the weights, with its value, and the one that leaves them whole; None if nothing does."""
        if self.sharding == "fully_shard":
            return "compute.sharding='fully_shard'", "compute.sharding='none'"
        if self.tensor_parallel > 1:
            return f"compute.tensor_parallel={self.tensor_parallel}", "compute.tensor_parallel=1"
        return None

    def shares_a_model(self) -> bool:
        """Return whether no worker alone makes a pass through the model."""
        return self.sharding != "none" or self.team_size() > 1
