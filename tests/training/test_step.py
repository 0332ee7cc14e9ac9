"""The gradient of a step does not know how its rows were cut."""

import pytest
import torch
from small_run import EMBEDDING, JOINT, alone, largest_difference, small_model, small_rows

from genai_core.config.objectives import CausalLm, Contrastive, Mixture, MixtureTerm
from genai_core.data.collate import collate
from genai_core.models.backbone import head_weight, hidden_states, see_segments
from genai_core.objectives.contrastive import contrastive_loss, contrastive_scores, pool_segments
from genai_core.objectives.registry import build_objectives
from genai_core.training.head import label_logps
from genai_core.training.step import accumulate_gradients, noise_seed

ROWS = 8


def gradients(model, objective, size, *, seeds=None, precision="float32", rows=None):
    taken = (small_rows() if rows is None else rows).take(range(ROWS))
    batches = [collate(taken[start : start + size]) for start in range(0, ROWS, size)]
    model.train()
    model.zero_grad(set_to_none=True)
    figures = accumulate_gradients(
        model,
        build_objectives(objective),
        batches,
        group=alone(),
        precision=precision,
        seeds=seeds or list(range(len(batches))),
    )
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}, figures


@pytest.mark.parametrize("objective", [CausalLm(), JOINT], ids=["causal", "joint"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_micro_batches_leave_the_gradient_unchanged(objective, size):
    model = small_model()
    whole, figures = gradients(model, objective, ROWS)
    cut, cut_figures = gradients(model, objective, size)
    assert largest_difference(whole, cut) < 1e-12
    assert cut_figures.loss == pytest.approx(figures.loss, abs=1e-12)
    assert cut_figures.terms == pytest.approx(figures.terms, abs=1e-12)


@pytest.mark.parametrize("objective", [CausalLm(), JOINT], ids=["causal", "joint"])
def test_float32_gradients_agree_to_five_digits(objective):
    model = small_model(torch.float32)
    whole, _ = gradients(model, objective, ROWS)
    cut, _ = gradients(model, objective, 1)
    for name, gradient in whole.items():
        assert float((gradient - cut[name]).norm() / gradient.norm()) < 1e-5, name


def test_mean_of_means_would_be_another_gradient():
    """The effect that the counts remove is there: rows have unequal numbers of supervised tokens."""
    model = small_model()
    exact, _ = gradients(model, CausalLm(), ROWS)
    rows = small_rows()
    model.zero_grad(set_to_none=True)
    for row in rows.take(range(ROWS)):
        batch = collate([row])
        hidden = hidden_states(model, batch["input_ids"], batch["position_ids"])
        logps = label_logps(hidden, head_weight(model), batch["labels"])
        (-logps.sum() / (batch["labels"] != -100).sum() / ROWS).backward()
    naive = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert largest_difference(exact, naive) > 1e-4


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_cached_gradients_are_those_of_the_unchunked_loss(dropout, pooling):
    """Micro-batches of 2 with the graph of all kept, against two passes per micro-batch with noise replayed."""
    model = small_model(dropout=dropout)
    seeds = [11, 12, 13, 14]
    objective = Contrastive(temperature=0.1, negatives=0, pooling=pooling)
    joint = Mixture(terms=(MixtureTerm(objective=CausalLm()), MixtureTerm(objective=objective, weight=0.5)))
    cached, figures = gradients(model, joint, 2, seeds=seeds)
    taken = small_rows().take(range(ROWS))
    model.zero_grad(set_to_none=True)
    nll, supervised, vectors = 0.0, 0, []
    for seed, start in zip(seeds, range(0, ROWS, 2), strict=True):
        batch = collate(taken[start : start + 2])
        torch.manual_seed(seed)
        hidden = hidden_states(model, batch["input_ids"], batch["position_ids"])
        nll = nll - label_logps(hidden, head_weight(model), batch["labels"]).sum()
        supervised += int((batch["labels"] != -100).sum())
        torch.manual_seed(seed)
        vectors.append(embed(model, batch, pooling))
    pairs = contrastive_loss(scores_of(torch.cat(vectors)))
    loss = nll / supervised + 0.5 * pairs.mean()
    loss.backward()
    exact = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert largest_difference(cached, exact) < 1e-9
    assert figures.loss == pytest.approx(float(loss.detach()), abs=1e-9)


def embed(model, batch, pooling="mean"):
    """Return the vectors of the first two segments of each row, (B, 2, D)."""
    seen = see_segments(batch["segment_ids"])
    hidden = hidden_states(model, batch["input_ids"], batch["position_ids"], seen)
    return pool_segments(hidden, batch["segment_ids"], batch["labels"] != -100, 2, pooling)


def scores_of(vectors):
    return contrastive_scores(vectors[:, 0], vectors[:, 1:], temperature=EMBEDDING.temperature, excluded=None)


def test_dropout_is_really_on_and_is_replayed_from_its_seed():
    model = small_model(dropout=0.1)
    first, _ = gradients(model, JOINT, 2, seeds=[1, 2, 3, 4])
    again, _ = gradients(model, JOINT, 2, seeds=[1, 2, 3, 4])
    other, _ = gradients(model, JOINT, 2, seeds=[5, 6, 7, 8])
    assert largest_difference(first, again) == 0.0
    assert largest_difference(first, other) > 1e-6


def test_contrastive_negatives_come_from_the_whole_step():
    """Splitting the batch silently would compare each row with fewer others: the loss would be lower."""
    model = small_model()
    _, whole = gradients(model, Contrastive(temperature=0.1, negatives=0), ROWS)
    parts = []
    for start in range(0, ROWS, 2):
        batch = collate(small_rows().take(range(start, start + 2)))
        parts.append(contrastive_loss(scores_of(embed(model, batch))).mean())
    assert abs(float(torch.stack(parts).mean().detach()) - whole.terms["contrastive"]) > 0.1


def test_a_step_without_supervised_tokens_has_no_loss_and_no_gradient():
    model = small_model()
    batch = collate(small_rows().take(range(2)))
    batch["labels"][:] = -100
    model.zero_grad(set_to_none=True)
    figures = accumulate_gradients(
        model, build_objectives(CausalLm()), [batch], group=alone(), precision="float32", seeds=[0]
    )
    assert (figures.loss, figures.counts) == (0.0, {"causal_lm": 0.0})
    assert all(float(p.grad.abs().sum()) == 0.0 for p in model.parameters())


def test_noise_seeds_differ_in_every_argument():
    seeds = {
        noise_seed(*arguments) for arguments in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    }
    assert len(seeds) == 5
    assert noise_seed(3, 1, 4, 1) == noise_seed(3, 1, 4, 1)
