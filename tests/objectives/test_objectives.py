"""The two objectives against closed forms and torch's own cross-entropy, at float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from genai_core.config.training import CausalLm, JointContrastive
from genai_core.objectives.base import CoupledObjective
from genai_core.objectives.causal_lm import CausalLmObjective, causal_lm_loss
from genai_core.objectives.info_nce import InfoNceObjective, info_nce_loss, pool_halves
from genai_core.objectives.registry import build_objectives


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_causal_lm_sums_what_is_supervised_and_counts_it_from_the_batch_alone():
    logps = -torch.arange(8.0, dtype=torch.float64).reshape(2, 4)
    labels = torch.tensor([[-100, 5, -100, 7], [-100, -100, 3, 0]])
    assert float(causal_lm_loss(logps, labels)) == 1 + 3 + 6 + 7
    assert int(CausalLmObjective().counts({"labels": labels})["causal_lm"]) == 4


def test_info_nce_is_cross_entropy_over_scaled_cosines():
    a, p = random(6, 5), random(6, 5, seed=1)
    scores = F.cosine_similarity(a[:, None], p[None], dim=-1) / 0.1
    expected = F.cross_entropy(scores, torch.arange(6), reduction="none")
    torch.testing.assert_close(info_nce_loss(a, p, temperature=0.1), expected, rtol=0, atol=1e-12)


def test_info_nce_of_equal_rows_is_the_log_of_their_number():
    same = torch.ones(7, 3, dtype=torch.float64)
    torch.testing.assert_close(info_nce_loss(same, same, temperature=0.05), torch.full((7,), math.log(7)).double())


def test_info_nce_knows_direction_not_length_nor_order_but_partners():
    a, p = random(6, 5), random(6, 5, seed=1)
    loss = info_nce_loss(a, p, temperature=0.2)
    torch.testing.assert_close(info_nce_loss(3 * a, 0.5 * p, temperature=0.2), loss, rtol=0, atol=1e-12)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(info_nce_loss(a[order], p[order], temperature=0.2), loss[order], rtol=0, atol=1e-12)
    assert float((info_nce_loss(a, p.roll(1, 0), temperature=0.2) - loss).abs().max()) > 0.1


def test_info_nce_gradient_is_checked():
    a, p = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: info_nce_loss(x, y, temperature=0.3), (a, p))


def test_halves_are_pooled_wide():
    hidden = random(2, 5, 3)
    expected = torch.stack([hidden[:, :2].mean(1), hidden[:, 2:].mean(1)], dim=1)
    torch.testing.assert_close(pool_halves(hidden), expected, rtol=0, atol=1e-12)
    assert pool_halves(hidden.bfloat16()).dtype == torch.float32
    assert pool_halves(hidden).dtype == torch.float64


def test_accuracy_is_the_share_of_nearest_partners():
    halves = torch.stack([torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]], dim=1).double()
    metric = InfoNceObjective(0.1).couple(halves).metrics["info_nce_accuracy"]
    assert (int(metric.total), int(metric.count)) == (2, 4)


@pytest.mark.parametrize(
    ("config", "expected"),
    [(CausalLm(), [("causal_lm", 1.0, False)]),
     (JointContrastive(contrastive_weight=0.3), [("causal_lm", 1.0, False), ("info_nce", 0.3, True)])],
)  # fmt: skip
def test_the_registry_names_weights_and_kinds(config, expected):
    batch = {"labels": torch.zeros(2, 4, dtype=torch.long), "input_ids": torch.zeros(2, 4, dtype=torch.long)}
    found = [
        (name, one.weight, isinstance(one.objective, CoupledObjective))
        for one in build_objectives(config)
        for name in one.objective.counts(batch)
    ]
    assert found == expected
