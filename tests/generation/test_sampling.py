"""The noise has the right law, and top-k and top-p keep what transformers' processors keep."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from transformers import TopKLogitsWarper, TopPLogitsWarper

from genai_core.config.generation import SamplingConfig
from genai_core.generation.sampling import _mix, choose_tokens, gumbel_noise, keep_likely, row_keys


def lowbias32(x: int) -> int:
    """The published mixer, on Python's own integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def test_the_mixer_is_the_published_one_in_wrapping_arithmetic():
    values = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xDEADBEEF, 0xFFFFFFFF, *range(1000, 9000, 37)]
    signed = torch.tensor([v - (1 << 32) if v >> 31 else v for v in values], dtype=torch.int32)
    assert [v & 0xFFFFFFFF for v in _mix(signed).tolist()] == [lowbias32(v) for v in values]


def test_noise_is_gumbel_and_independent_of_row_position_and_token():
    keys = row_keys(0, [f"row-{i}" for i in range(200)])
    noise = gumbel_noise(keys, torch.full((200,), 3), 500).double()
    assert stats.kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 0.01
    later = gumbel_noise(keys, torch.full((200,), 4), 500).double()
    shifted = gumbel_noise(row_keys(1, [f"row-{i}" for i in range(200)]), torch.full((200,), 3), 500).double()
    for other in (later, shifted, noise.roll(1, 0), noise.roll(1, 1), later.roll(1, 1)):
        r = torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]
        assert abs(float(r)) < 4 / (noise.numel() ** 0.5)
    assert torch.isfinite(noise).all()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_tokens_follow_the_softmax(temperature):
    torch.manual_seed(0)
    logits = torch.randn(1, 12) * 1.5
    rows = 20_000
    keys = row_keys(5, [str(i) for i in range(rows)])
    sampling = SamplingConfig(temperature=temperature)
    tokens, logps = choose_tokens(logits.expand(rows, -1), sampling, keys, torch.zeros(rows, dtype=torch.long))
    expected = (logits[0].double() / temperature).softmax(-1) * rows
    observed = tokens.bincount(minlength=12)
    assert stats.chisquare(observed.numpy(), expected.numpy()).pvalue > 0.01
    # the negative half: the same counts do not fit another temperature
    wrong = (logits[0].double() / (temperature + 0.1)).softmax(-1) * rows
    assert stats.chisquare(observed.numpy(), wrong.numpy()).pvalue < 1e-6
    torch.testing.assert_close(logps, logits[0].log_softmax(-1)[tokens])


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 1.0), (1, 1.0), (5, 1.0), (500, 1.0), (0, 0.9), (0, 0.01), (7, 0.5), (0, 0.0)]
)
def test_kept_tokens_are_those_of_transformers(top_k, top_p):
    torch.manual_seed(1)
    logits = torch.randn(64, 40) * 3
    expected = logits
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if 0 < top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    if top_p == 0:  # transformers refuses it; the limit is the most likely token alone
        expected = TopKLogitsWarper(1)(None, expected)
    assert torch.equal(keep_likely(logits, top_k, top_p), expected)


def test_greedy_takes_the_largest_and_reports_its_logp():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    tokens, logps = choose_tokens(logits, SamplingConfig(temperature=0), row_keys(0, ["a", "b"]), torch.zeros(2))
    assert tokens.tolist() == [1, 0]
    torch.testing.assert_close(logps, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0])
