"""A decoder's layers over neighbouring ranks, and micro-batches through them: one forward, one backward (1F1B).

    stage 0 of 3    F0 F1 F2 .. .. B0 F3 B1 .. B2 .. B3        F: hidden states come from the left and go to the right
    stage 1            F0 F1 .. B0 F2 B1 F3 B2 .. B3           B: their gradients come from the right and go to the left
    stage 2               F0 B0 F1 B1 F2 B2 F3 B3

Narayanan et al. 2019 and 2021, arXiv 1806.03377 and 2104.04473. Stage s of p has at most p - s micro-batches' activations at
a time, however many there are; of m micro-batches' time each stage waits (p - 1) / (m + p - 1).

All of a team see the same rows, so each knows masks, labels and shapes itself, and only hidden states travel. Sends are never waited
for before what they bring about has come back, and the two ways have a channel each, so neighbours cannot wait for each
other. The last stage computes the objective's loss as it would on a whole model, below the counts of the whole step.

torch.distributed.pipelining has schedules too. They fix the number and the shape of the micro-batches when they are made, and
cut one tensor themselves; here a step's micro-batches differ in number and length (curricula, shares of the rows), and
each has a seed for its noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from genai_core.config.training import TrainingConfig
from genai_core.errors import ConfigError, ModelError
from genai_core.models.backbone import causal_model
from genai_core.models.stages import check_parts, enter, keep_part
from genai_core.training.parallel import Group, Sent

STAGE = "pipeline_stage"
GATHERED = ("model", "optimizer")
"""Files of a checkpoint that every stage has a part of."""

Result = TypeVar("Result")
Shape = tuple[int, ...]


def order_passes(index: int, stages: int, passes: int) -> Iterator[tuple[Literal["forward", "backward"], int]]:
    """Yield what a stage does, in order: which pass, and which way."""
    ahead = min(stages - 1 - index, passes)
    for number in range(ahead):
        yield "forward", number
    for number in range(passes - ahead):
        yield "forward", number + ahead
        yield "backward", number
    for number in range(passes - ahead, passes):
        yield "backward", number


class Stage:
    """This rank's part of a model that is cut over its team, and the way to its neighbours."""

    def __init__(self, model: Any, group: Group) -> None:
        """Let go of the other parts.

        Args:
            model: whole, the same on all ranks.
            group: with teams of the size of the pipeline.
        """
        assert group.team is not None
        self._model = model
        self._rows = group.rows
        self._team = group.team
        self._back = group.twin_of_team()
        self._part = keep_part(model, self._team.rank, self._team.world_size)
        self._sent: Sent | None = None
        self._sent_back: Sent | None = None
        self.most_in_flight = 0
        """Largest number of passes so far that were through here, but whose gradients had not yet come back."""

    @property
    def index(self) -> int:
        """Return its place."""
        return self._team.rank

    @property
    def is_first(self) -> bool:
        """Return whether it has the embeddings."""
        return self.index == 0

    @property
    def is_last(self) -> bool:
        """Return whether it has the head, and so the loss."""
        return self.index == self._team.world_size - 1

    def is_elsewhere(self, name: str) -> bool:
        """Return whether a weight of the model is another stage's."""
        return name in self._part.elsewhere

    def pass_on(self, shape: Shape, run: Callable[[], Result]) -> Result | None:
        """Make a pass without backward; return what comes out of the last stage, None on the others.

        Args:
            shape: (B, T) of the tokens.
            run: makes this stage's pass, from what has entered; but for the last, it returns {'hidden': (B, T, D)}.
        """
        self._receive(shape)
        result: Any = run()
        if self.is_last:
            return result  # type: ignore[no-any-return]
        if self._sent is not None:
            self._sent.wait()
        self._sent = self._send(result["hidden"])
        return None

    def descend(self, passes: Sequence[tuple[Shape, Callable[[], Tensor]]]) -> None:
        """Make passes forwards and backwards; gradients are left in `.grad`, but those of tied weights are not yet whole.

        Args:
            passes: of each the (B, T) of its tokens, and what makes it: of the last stage the loss, (), of the others
                the hidden states that leave it, (B, T, D).
        """
        flying: dict[int, tuple[Tensor | None, Tensor, Sent | None]] = {}
        for way, number in order_passes(self.index, self._team.world_size, len(passes)):
            if way == "forward":
                shape, run = passes[number]
                entered = self._receive(shape)
                left = run()
                flying[number] = entered, left, None if self.is_last else self._send(left)
                self.most_in_flight = max(self.most_in_flight, len(flying))
            else:
                self._go_back(*flying.pop(number))
        if self._sent_back is not None:
            self._sent_back.wait()
            self._sent_back = None

    def join_tied(self) -> None:
        """Add up what the first and the last stage have of the gradient of the one matrix; both get the same bits."""
        weight = self._tied()
        if weight is None or not weight.requires_grad:
            return
        own = torch.zeros_like(weight) if weight.grad is None else weight.grad
        theirs = torch.empty_like(own)
        there, back = (self._team, self._back) if self.is_first else (self._back, self._team)
        other = self._team.world_size - 1 if self.is_first else 0
        sent = there.send(own, other)
        back.receive(theirs, other)
        sent.wait()
        weight.grad = own + theirs

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradient of all stages, (), tied weights once; the same on every rank."""
        tied = None if self.is_first else self._tied()
        own = [one for one in self._model.parameters() if one is not tied and one.grad is not None]
        norm = torch.nn.utils.get_total_norm([one.grad for one in own])
        square = norm.to(self._team.device, torch.float64).square()
        self._team.sum_([square])
        return square.sqrt().to(self._part.dtype)

    def tell(self, value: Any) -> Any:
        """Return the last stage's JSON value on all of them."""
        return self._team.gather_json(value)[-1]

    def tell_all(self, value: Any) -> list[Any]:
        """Return the JSON values of all stages."""
        return self._team.gather_json(value)

    def gather(self, parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of all stages by file and name on the run's first rank, theirs in main memory; {} elsewhere.

        Args:
            parts: this stage's, by file and a name that begins with a weight's: 'model' and 'optimizer', and others, which are the
                first rank's.
        """
        if self._rows.rank:
            return {}
        if not self.is_first:
            tied = self._part.tied
            own = {
                part: {name: tensor for name, tensor in parts[part].items() if not tied or name.split("/")[0] != tied}
                for part in GATHERED
                if part in parts
            }
            list(self._team.hand_over(own))
            return {}
        found = {part: dict(content) for part, content in parts.items()}
        for theirs in self._team.hand_over(parts):
            for part, content in theirs.items():
                found[part].update({name: tensor.cpu() for name, tensor in content.items()})
        return found

    def gather_weights(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of all stages by name on the run's first rank; nothing on the others, which must ask too."""
        found = self.gather({"model": {name: one.detach() for name, one in parameters.items()}})
        return found.get("model", {})

    def _receive(self, shape: Shape) -> Tensor | None:
        """Let the model compute on what the stage before sends; return that, None on the first."""
        if self.is_first:
            return None
        hidden = torch.empty((*shape, self._part.width), dtype=self._part.dtype, device=self._team.device)
        self._team.receive(hidden, self.index - 1)
        hidden.requires_grad_(torch.is_grad_enabled())
        enter(self._model, hidden)
        return hidden

    def _send(self, hidden: Tensor) -> Sent:
        if hidden.dtype != self._part.dtype:
            raise ModelError(
                f"{type(causal_model(self._model)).__name__}: its hidden states are {hidden.dtype} between two layers, but its "
                f"embeddings {self._part.dtype}. Use compute.pipeline_stages=1."
            )
        return self._team.send(hidden.detach(), self.index + 1)

    def _go_back(self, entered: Tensor | None, left: Tensor, sent: Sent | None) -> None:
        if sent is None:
            left.backward()
        else:
            slope = torch.empty_like(left)
            self._back.receive(slope, self.index + 1)
            sent.wait()
            if left.requires_grad:  # else all of it is frozen, up to here
                left.backward(slope)
        if entered is not None:
            if self._sent_back is not None:
                self._sent_back.wait()
            slope = torch.zeros_like(entered) if entered.grad is None else entered.grad
            self._sent_back = self._back.send(slope, self.index - 1)

    def _tied(self) -> Any:
        return dict(self._model.named_parameters())[self._part.tied] if self._part.tied else None


def stage_of(model: Any) -> Stage | None:
    """Return the stage that a model is cut to, None if it is whole."""
    found: Stage | None = causal_model(model).__dict__.get(STAGE)
    return found


def check_stages(config: TrainingConfig) -> None:
    """Raise ConfigError if a training cannot be computed in a pipeline."""
    if reason := config.why_no_stages():
        raise ConfigError(reason)


def cut_stages(model: Any, group: Group, config: TrainingConfig, states: Callable[..., Tensor]) -> None:
    """Cut a model's layers over the ranks of a team, in place; all begin with rank 0's weights.

    The stages together must then compute what the whole model did.

    Args:
        model: a causal model, adapted or not, whole on every rank, on the group's device.
        group: with teams of the size of the pipeline.
        config: of the training.
        states: (input_ids, position_ids) -> hidden states, as the engine calls the model.

    Raises:
        ConfigError: the training, or the model, cannot be computed in a pipeline.
        ModelError: the stages compute something else than the model.
    """
    team = group.team
    assert team is not None
    check_stages(config)
    check_parts(model, team.world_size)
    group.broadcast_([tensor.data for tensor in (*model.parameters(), *model.buffers())])
    vocabulary = model.get_output_embeddings().weight.shape[0]
    length = min(16, config.seq_len)
    ids = (torch.arange(length, device=group.device) * 7 % vocabulary)[None]
    positions = (torch.arange(length, device=group.device) % max(1, length // 2))[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        expected = states(ids, positions)
        stage = Stage(model, group)
        causal_model(model).__dict__[STAGE] = stage
        found = stage.pass_on((1, length), lambda: {"hidden": states(ids, positions)})
    model.train(was_training)
    error = 0.0
    if found is not None:
        error = float((found["hidden"] - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    worst = max(float(one) if math.isfinite(one) else math.inf for one in team.gather_json(error))
    if worst > (1e-2 if expected.dtype == torch.bfloat16 else 1e-5):
        raise ModelError(
            f"{type(causal_model(model)).__name__}: its layers one after another do not compute what it computes (hidden states "
            f"differ by {worst:.2g} of the largest). Use compute.pipeline_stages=1."
        )
