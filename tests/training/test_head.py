"""The chunked head is the full one, and never holds what the full one holds."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from genai_core.objectives.base import IGNORE_INDEX
from genai_core.objectives.causal_lm import causal_lm_loss
from genai_core.training.head import label_logps


def make_case(rows=3, tokens=7, width=5, vocab=11, dtype=torch.float64):
    torch.manual_seed(0)
    hidden = torch.randn(rows, tokens, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab, width, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, vocab, (rows, tokens))
    labels[torch.rand(rows, tokens) < 0.4] = IGNORE_INDEX
    labels[:, 0] = IGNORE_INDEX
    return hidden, weight, labels


def full_logps(hidden, weight, labels):
    """The same from all logits at once."""
    logps = (hidden @ weight.T)[:, :-1].log_softmax(-1)
    picked = logps.gather(2, labels[:, 1:].clamp_min(0)[..., None]).squeeze(2) * (labels[:, 1:] != IGNORE_INDEX)
    return F.pad(picked, (1, 0))


@pytest.mark.parametrize("is_mean", [False, True], ids=["each label its own slope", "one slope for all"])
@pytest.mark.parametrize(("chunk", "kept_bytes"), [(1, 0), (4, 0), (4, 1 << 20), (1000, 0), (1000, 1 << 20)])
def test_values_and_gradients_are_those_of_full_logits(chunk, kept_bytes, is_mean):
    hidden, weight, labels = make_case()
    slope = torch.full(labels.shape, 0.37, dtype=torch.float64) if is_mean else torch.randn(labels.shape).double()
    ours = label_logps(hidden, weight, labels, chunk=chunk, kept_bytes=kept_bytes)
    theirs = full_logps(hidden, weight, labels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for mine, reference in zip(
        torch.autograd.grad((ours * slope).sum(), (hidden, weight)),
        torch.autograd.grad((theirs * slope).sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


def test_gradcheck():
    hidden, weight, labels = make_case(rows=2, tokens=4, width=3, vocab=5)
    assert torch.autograd.gradcheck(lambda h, w: label_logps(h, w, labels, chunk=2, kept_bytes=0), (hidden, weight))


def test_frozen_head_gets_no_gradient_but_hidden_states_do():
    hidden, weight, labels = make_case()
    label_logps(hidden, weight.detach(), labels).sum().backward()
    assert float(hidden.grad.abs().sum()) > 0
    assert weight.grad is None


def test_labels_are_predicted_from_the_position_before():
    hidden, weight, labels = make_case()
    labels[:] = IGNORE_INDEX
    labels[1, 3] = 2
    (slope,) = torch.autograd.grad(label_logps(hidden, weight, labels).sum(), hidden)
    assert slope.abs().sum(-1).nonzero().tolist() == [[1, 2]]


def test_uniform_logits_give_the_log_of_the_vocabulary():
    hidden, _, labels = make_case(vocab=37)
    logps = label_logps(hidden, torch.zeros(37, 5, dtype=torch.float64), labels.clamp_max(36))
    supervised = labels != IGNORE_INDEX
    torch.testing.assert_close(-logps[supervised], torch.full((int(supervised.sum()),), math.log(37)).double())


def test_nothing_supervised_is_zero_and_connected():
    hidden, weight, labels = make_case()
    labels[:] = IGNORE_INDEX
    loss = causal_lm_loss(label_logps(hidden, weight, labels), labels)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert float(hidden.grad.abs().sum()) == 0.0
    assert float(weight.grad.abs().sum()) == 0.0


def test_bfloat16_products_stay_near_and_accumulate_wide():
    hidden, weight, labels = make_case(rows=8, tokens=64, width=32, vocab=100, dtype=torch.float32)
    ours = label_logps(hidden, weight, labels, matmul_dtype=torch.bfloat16, chunk=32)
    exact = full_logps(hidden, weight, labels)
    assert ours.dtype == torch.float32
    assert 1e-6 < float((ours - exact).detach().abs().max()) < 0.3
    ours.sum().backward()
    mine = weight.grad.clone()
    weight.grad = None
    exact.sum().backward()
    assert mine.dtype == torch.float32
    assert float((mine - weight.grad).norm() / weight.grad.norm()) < 0.02


class LargestTensor(TorchDispatchMode):
    """Sees every tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("ours", [True, False])
def test_large_vocabulary_never_materialises_all_logits(ours):
    vocab, width, rows, tokens = 49_152, 4, 4, 257
    hidden, weight, labels = make_case(rows, tokens, width, vocab, torch.float32)
    labels[:, 1:] = labels[:, 1:].clamp_min(0)
    all_logits = rows * (tokens - 1) * vocab * 4  # 201 MB
    with LargestTensor() as seen:
        (label_logps if ours else full_logps)(hidden, weight, labels).sum().backward()
    if ours:
        assert seen.largest <= all_logits // 4
    else:
        assert seen.largest >= all_logits  # the watch sees what it is for


@pytest.mark.parametrize("is_mean", [False, True], ids=["each label its own slope", "one slope for all"])
@pytest.mark.parametrize(("chunk", "kept_bytes"), [(4, 0), (4, 1 << 20), (1000, 0)])
def test_a_bias_has_its_values_and_its_gradient(chunk, kept_bytes, is_mean):
    hidden, weight, labels = make_case()
    bias = torch.randn(len(weight), dtype=torch.float64, requires_grad=True)
    slope = torch.full(labels.shape, 0.37, dtype=torch.float64) if is_mean else torch.randn(labels.shape).double()
    ours = label_logps(hidden, weight, labels, bias=bias, chunk=chunk, kept_bytes=kept_bytes)
    ones = torch.ones((*hidden.shape[:2], 1), dtype=torch.float64)
    theirs = full_logps(torch.cat([hidden, ones], -1), torch.cat([weight, bias[:, None]], -1), labels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for mine, reference in zip(
        torch.autograd.grad((ours * slope).sum(), (hidden, weight, bias)),
        torch.autograd.grad((theirs * slope).sum(), (hidden, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)
