"""Two chunked heads are two full ones, whatever their widths and numbers of rows, and never hold what those hold."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genai_core.objectives.base import IGNORE_INDEX
from genai_core.objectives.distillation import Divergence
from genai_core.training.compared_heads import compare_heads

KINDS = [Divergence("forward"), Divergence("reverse", temperature=2.0), Divergence("jensen_shannon", beta=0.3)]
each_kind = pytest.mark.parametrize("divergence", KINDS, ids=lambda one: one.kind)


def make_case(rows=3, tokens=7, widths=(5, 8), vocabs=(11, 11), dtype=torch.float64):
    torch.manual_seed(0)
    hidden = torch.randn(rows, tokens, widths[0], dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabs[0], widths[0], dtype=dtype, requires_grad=True)
    other_hidden = torch.randn(rows, tokens, widths[1], dtype=dtype, requires_grad=True)
    other_weight = torch.randn(vocabs[1], widths[1], dtype=dtype, requires_grad=True)
    labels = torch.randint(0, min(vocabs), (rows, tokens))
    labels[torch.rand(rows, tokens) < 0.4] = IGNORE_INDEX
    labels[:, 0] = IGNORE_INDEX
    return hidden, weight, other_hidden, other_weight, labels


def full(hidden, weight, other_hidden, other_weight, labels, divergence, offset=1):
    """The same from both models' logits at once."""
    vocab = min(len(weight), len(other_weight))
    tokens = labels.shape[1] - offset
    student, teacher = (hidden @ weight.T)[:, :tokens, :vocab], (other_hidden @ other_weight.T)[:, :tokens, :vocab]
    values = divergence(student.flatten(0, 1), teacher.detach().flatten(0, 1))[0].unflatten(0, student.shape[:2])
    out = torch.zeros(labels.shape, dtype=values.dtype)
    out[:, offset:] = values * (labels[:, offset:] != IGNORE_INDEX)
    return out


@each_kind
@pytest.mark.parametrize("is_mean", [False, True], ids=["each label its own slope", "one slope for all"])
@pytest.mark.parametrize("vocabs", [(11, 11), (13, 11), (11, 13)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize("offset", [0, 1])
def test_values_and_gradients_are_those_of_full_logits(divergence, is_mean, vocabs, chunk, offset):
    case = make_case(vocabs=vocabs)
    hidden, weight, labels = case[0], case[1], case[-1]
    slope = torch.full(labels.shape, 0.37, dtype=torch.float64) if is_mean else torch.randn(labels.shape).double()
    ours = compare_heads(*case, divergence, offset=offset, chunk=chunk)
    theirs = full(*case, divergence, offset)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for mine, reference in zip(
        torch.autograd.grad((ours * slope).sum(), (hidden, weight)),
        torch.autograd.grad((theirs * slope).sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


@each_kind
def test_gradcheck(divergence):
    hidden, weight, *rest = make_case(rows=2, tokens=4, widths=(3, 2), vocabs=(5, 5))
    assert torch.autograd.gradcheck(lambda h, w: compare_heads(h, w, *rest, divergence, chunk=2), (hidden, weight))


def test_the_teacher_has_no_gradient_and_a_frozen_head_none_either():
    hidden, weight, other_hidden, other_weight, labels = make_case()
    compare_heads(hidden, weight.detach(), other_hidden, other_weight, labels, KINDS[0]).sum().backward()
    assert float(hidden.grad.abs().sum()) > 0
    assert weight.grad is None
    assert other_hidden.grad is None
    assert other_weight.grad is None


def test_nothing_supervised_is_zero_and_connected():
    hidden, weight, other_hidden, other_weight, labels = make_case()
    labels[:] = IGNORE_INDEX
    loss = compare_heads(hidden, weight, other_hidden, other_weight, labels, KINDS[0]).sum()
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(hidden.grad.abs().sum()) == 0.0


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_no_more_than_a_chunk_of_logits_is_ever_there():
    case = make_case(rows=4, tokens=65, vocabs=(999, 999), dtype=torch.float32)
    hidden, weight = case[:2]
    with LargestTensor() as seen:
        loss = compare_heads(*case, KINDS[2], chunk=16).sum()
        torch.autograd.grad(loss, (hidden, weight))
    assert seen.elements == 16 * 999  # two stacked would be twice that
    with LargestTensor() as seen:
        full(*case, KINDS[2])
    assert seen.elements >= 4 * 64 * 999


def test_half_precision_products_stay_near_and_are_summed_wide():
    case = make_case(rows=4, tokens=33, widths=(16, 24), vocabs=(50, 50), dtype=torch.float32)
    near = compare_heads(*case, KINDS[0], matmul_dtype=torch.bfloat16)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, compare_heads(*case, KINDS[0]), rtol=0.1, atol=0.3)
