"""Distillation against TRL's generalised Jensen-Shannon loss, closed forms and torch's own gradient, at float64."""

import math
import warnings

import pytest
import torch
from torch.nn import functional as F

from genai_core.config.objectives import Distillation
from genai_core.objectives.base import IGNORE_INDEX
from genai_core.objectives.distillation import DistillationObjective, Divergence
from genai_core.objectives.registry import build_objectives
from genai_core.training.evaluate import choose_measured
from genai_core.training.step import pass_of

KINDS = [
    Divergence("forward"),
    Divergence("reverse"),
    Divergence("jensen_shannon", beta=0.1),
    Divergence("jensen_shannon", beta=0.5),
    Divergence("jensen_shannon", beta=0.9),
    Divergence("forward", temperature=2.5),
    Divergence("reverse", temperature=0.7),
    Divergence("jensen_shannon", temperature=2.0, beta=0.3),
]
each_kind = pytest.mark.parametrize("divergence", KINDS, ids=lambda one: f"{one.kind}-{one.temperature}-{one.beta}")


def logits(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def trl_loss(student, teacher, labels, divergence):
    """TRL 1.16: without tau^2, its beta is 0 for forward and 1 for reverse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.gkd import GKDTrainer
    beta = {"forward": 0, "reverse": 1}.get(divergence.kind, divergence.beta)
    found = GKDTrainer.generalized_jsd_loss(
        student, teacher, labels=labels, beta=beta, temperature=divergence.temperature, reduction="sum"
    )
    return divergence.temperature**2 * found


@each_kind
def test_it_is_trls_loss_and_gradient(divergence):
    student, teacher = logits(3, 5, 11).requires_grad_(), logits(3, 5, 11, seed=1)
    labels = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(2))
    labels[0, 1:3] = labels[2] = IGNORE_INDEX
    theirs = trl_loss(student, teacher, labels, divergence)
    (their_slope,) = torch.autograd.grad(theirs, student)
    kept = labels != IGNORE_INDEX
    values, slopes = divergence(student.detach()[kept], teacher[kept])
    torch.testing.assert_close(values.sum(), theirs.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes, their_slope[kept], rtol=0, atol=1e-12)


@each_kind
def test_the_slope_is_the_gradient_of_the_value(divergence):
    student, teacher = logits(4, 7).requires_grad_(), logits(4, 7, seed=1)
    (slope,) = torch.autograd.grad(divergence(student, teacher)[0].sum(), student)
    torch.testing.assert_close(divergence(student.detach(), teacher)[1], slope, rtol=0, atol=1e-12)


@each_kind
def test_agreement_costs_nothing_and_moves_nothing_and_all_else_costs(divergence):
    same = logits(6, 9)
    values, slopes = divergence(same, same + 3.0)  # a constant is no part of a distribution
    torch.testing.assert_close(values, torch.zeros(6).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(slopes, torch.zeros(6, 9).double(), rtol=0, atol=1e-12)
    assert float(divergence(same, logits(6, 9, seed=1))[0].min()) > 1e-3


def test_a_teacher_that_is_sure_of_the_label_gives_cross_entropy():
    student, labels = logits(5, 8), torch.tensor([0, 7, 3, 3, 1])
    sure = F.one_hot(labels, 8).double() * 1e3
    values, slopes = Divergence("forward")(student, sure)
    torch.testing.assert_close(values, F.cross_entropy(student, labels, reduction="none"), rtol=0, atol=1e-12)
    torch.testing.assert_close(slopes, student.softmax(-1) - F.one_hot(labels, 8), rtol=0, atol=1e-12)


def test_jensen_shannon_is_symmetric_bounded_and_shrinks_to_both_others():
    a, b = logits(6, 9, scale=30.0), logits(6, 9, seed=1, scale=30.0)
    half = Divergence("jensen_shannon", beta=0.5)
    torch.testing.assert_close(half(a, b)[0], half(b, a)[0], rtol=0, atol=1e-12)
    assert 0.5 * math.log(2) < float(half(a, b)[0].max()) <= math.log(2) + 1e-12
    a, b = logits(6, 9), logits(6, 9, seed=1)
    for beta, limit in ((1e-6, Divergence("forward")), (1 - 1e-6, Divergence("reverse"))):
        small = Divergence("jensen_shannon", beta=beta)(a, b)[0] / min(beta, 1 - beta)
        torch.testing.assert_close(small, limit(a, b)[0], rtol=1e-3, atol=0)


def test_forward_covers_two_peaks_and_reverse_keeps_to_one():
    """Of all single bumps on a line, which is nearest to a teacher with two? The reason for having both directions."""
    line = torch.arange(41, dtype=torch.float64)
    teacher = torch.logaddexp(-0.5 * ((line - 10) / 2) ** 2, -0.5 * ((line - 30) / 2) ** 2 + math.log(0.7))
    bumps = [(centre / 2, width / 2) for centre in range(81) for width in range(2, 40)]
    students = torch.stack([-0.5 * ((line - centre) / width) ** 2 for centre, width in bumps])
    nearest = {
        kind: bumps[int(Divergence(kind)(students, teacher.expand(len(bumps), -1))[0].argmin())]
        for kind in ("forward", "reverse")
    }
    q = teacher.softmax(0)
    mean = float((q * line).sum())
    spread = math.sqrt(float((q * (line - mean) ** 2).sum()))
    assert nearest["reverse"] == (10, 2)
    centre, width = nearest["forward"]
    p = (-0.5 * ((line - centre) / width) ** 2).softmax(0)  # a bump that is wider than the line has other moments on it
    found = float((p * line).sum())
    assert found == pytest.approx(mean, abs=0.5)
    assert math.sqrt(float((p * (line - found) ** 2).sum())) == pytest.approx(spread, abs=0.3)


def test_the_registry_adds_labels_where_asked_and_held_out_text_is_measured_by_them():
    teacher = {"kind": "folder", "path": "t"}
    [alone] = build_objectives(Distillation(teacher=teacher, divergence="reverse", temperature=2.0))
    assert isinstance(alone.objective, DistillationObjective)
    assert choose_measured([alone]).name == "causal_lm"
    both = build_objectives(Distillation(teacher=teacher, label_weight=0.3))
    assert [one.weight for one in both] == [1.0, 0.3]
    assert len({pass_of(one, {})[1:] for one in both}) == 1  # both read one pass through the student
    batch = {"labels": torch.tensor([[-100, 3, 4], [-100, -100, 1]])}
    assert {name: int(n) for one in both for name, n in one.objective.counts(batch).items()} == {
        "distillation": 3,
        "causal_lm": 3,
    }


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_ends_of_beta_are_kinds_of_their_own(beta):
    with pytest.raises(ValueError, match="beta"):
        Distillation(teacher={"kind": "folder", "path": "t"}, divergence="jensen_shannon", beta=beta)
