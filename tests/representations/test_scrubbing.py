"""Scrubbing real decoders and encoders: nothing linear is left at any point of the scrubbed model, and it can be undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import MODELS, build, encoded
from torch.nn.functional import one_hot
from transformers import Gemma2Config, Gemma2ForCausalLM

from genai_core.errors import DataError, ModelError
from genai_core.representations.eraser_files import (
    ErasedPoint,
    digest_weights,
    load_scrubbed,
    read_erasers,
    write_erasers,
)
from genai_core.representations.erasers import Eraser, fit_leace, fit_random, residual_correlation
from genai_core.representations.moments import measure
from genai_core.representations.scrubbing import attach, observe, points_of, scrubbed
from genai_core.representations.states import Text, encode, moments_at, pooled_at

CASES = [*MODELS]


def fit(model: Any, texts: list[Text], labels: list[int], points: list[str], *, sequential: bool) -> dict[str, Eraser]:
    if not sequential:
        return {name: fit_leace(found) for name, found in moments_at(model, texts, labels, 3, {}, points).items()}
    erasers: dict[str, Eraser] = {}
    for point in points:
        erasers[point] = fit_leace(moments_at(model, texts, labels, 3, erasers, [point])[point])
    return erasers


def correlation_left(model: Any, texts: list[Text], labels: list[int], erasers: dict[str, Any]) -> dict[str, float]:
    """Return the largest correlation of a feature with a label, at each point of the model as it runs now."""
    found = {}
    for point, moments in moments_at(model, texts, labels, 3, erasers, points_of(model, final=True)).items():
        nothing = Eraser(torch.zeros(24, 0).double(), torch.zeros(0, 24).double(), None)
        found[point] = residual_correlation(nothing, moments)
    return found


@pytest.mark.parametrize("kind", CASES)
def test_points_are_met_in_their_order(kind: str) -> None:
    model, texts, _ = encoded(kind, 3)
    names, met = points_of(model, final=True), []
    handles = [
        dict(model.named_modules())[name].register_forward_hook(lambda _, __, ___, name=name: met.append(name))
        for name in names
    ]
    model.base_model(input_ids=torch.tensor([texts[0].ids]))
    for handle in handles:
        handle.remove()
    assert met == names and len(names) == 5
    assert points_of(model) == names[:-1], "what the head reads is left alone"


def test_a_layout_that_is_not_known_is_refused() -> None:
    config = Gemma2Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8
    )
    with pytest.raises(ModelError, match="Gemma2ForCausalLM are of no layout"):
        points_of(Gemma2ForCausalLM(config))


@pytest.mark.parametrize("kind", CASES)
def test_fitted_in_order_nothing_is_left_anywhere_and_in_one_pass_something_is(kind: str) -> None:
    model, texts, labels = encoded(kind)
    points = points_of(model)
    before = correlation_left(model, texts, labels, {})
    assert min(before.values()) > 0.05
    in_order = correlation_left(model, texts, labels, fit(model, texts, labels, points, sequential=True))
    at_once = correlation_left(model, texts, labels, fit(model, texts, labels, points, sequential=False))
    assert max(in_order[point] for point in points) < 1e-9
    assert max(at_once[point] for point in points) > 1e-3
    assert in_order[points_of(model, final=True)[-1]] > 1e-6, "what the head reads was not erased"


@pytest.mark.parametrize("kind", CASES)
def test_the_final_norm_can_be_erased_too_and_in_float32(kind: str) -> None:
    model, texts, labels = encoded(kind, dtype=torch.float32)
    erasers = fit(model, texts, labels, points_of(model, final=True), sequential=True)
    assert max(correlation_left(model, texts, labels, erasers).values()) < 1e-4


@pytest.mark.parametrize("kind", CASES)
def test_single_tokens_and_pooled_texts_are_guarded_by_one_eraser(kind: str) -> None:
    model, texts, labels = encoded(kind)
    points = points_of(model, final=True)
    erasers = fit(model, texts, labels, points, sequential=True)
    z = one_hot(torch.tensor(labels), 3)
    for point, pooled in pooled_at(model, texts, erasers, points).items():
        assert float(measure(pooled, z).cov_xz.abs().max()) < 1e-10, point
    untouched = pooled_at(model, texts, {}, points)
    assert min(float(measure(pooled, z).cov_xz.abs().max()) for pooled in untouched.values()) > 1e-3


@pytest.mark.parametrize("kind", CASES)
def test_erasing_nothing_changes_nothing_and_a_removed_eraser_leaves_no_trace(kind: str) -> None:
    model, texts, labels = encoded(kind)
    ids = torch.tensor([texts[0].ids])
    points = points_of(model)
    moments = moments_at(model, texts, labels, 3, {}, points)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with scrubbed(model, {point: fit_random(found, 0, 0) for point, found in moments.items()}):
            assert torch.equal(model(input_ids=ids).logits, expected)
        with scrubbed(model, {point: fit_leace(found) for point, found in moments.items()}):
            assert float((model(input_ids=ids).logits - expected).abs().max()) > 1e-3
        assert torch.equal(model(input_ids=ids).logits, expected)
        with pytest.raises(RuntimeError, match="halfway"), scrubbed(model, {points[0]: _fail}):
            model(input_ids=ids)
        assert torch.equal(model(input_ids=ids).logits, expected)


def _fail(_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("halfway")


def test_a_pass_ends_where_enough_was_seen() -> None:
    model, texts, _ = encoded("llama", 3)
    calls: list[str] = []
    model.model.layers[1].register_forward_hook(lambda *_: calls.append("layer 1"))
    model.model.layers[0].register_forward_hook(lambda *_: calls.append("layer 0"))
    point = "model.layers.1.input_layernorm"
    observe(model, {}, [point], lambda: model(input_ids=torch.tensor([texts[0].ids])))
    assert calls == ["layer 0"]


@pytest.mark.parametrize("kind", CASES)
def test_padding_and_special_tokens_count_for_nothing(kind: str) -> None:
    """The same states from texts one at a time, without padding, as from padded batches; marks are left out."""
    model, texts, _ = encoded(kind, 12)
    point = points_of(model)[-1]
    together = pooled_at(model, texts, {}, [point])[point]
    for text in texts:
        alone = Text(0, text.ids, text.own)
        assert torch.allclose(pooled_at(model, [alone], {}, [point])[point][0], together[text.row], atol=1e-10)
    assert len({len(text.ids) for text in texts}) > 3 and not texts[0].own[0]


def test_texts_without_tokens_are_no_observations() -> None:
    model, tokenizer, family = build("llama")
    texts = encode(tokenizer, family, ["the river", "", "the stone"], 8)
    point = points_of(model)[0]
    found = moments_at(model, texts, [0, 1, 1], 2, {}, [point])[point]
    assert found.weight == pytest.approx(2.0) and found.n == sum(map(sum, (text.own for text in texts)))
    assert float(pooled_at(model, texts, {}, [point])[point][1].abs().max()) == 0.0
    assert moments_at(model, texts[1:2], [0, 1, 1], 2, {}, [point])[point].n == 0


@pytest.mark.parametrize("kind", CASES)
def test_an_artifact_loads_with_the_model_it_was_fitted_on(kind: str, tmp_path: Path) -> None:
    model, texts, labels = encoded(kind, dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    erasers = fit(model, texts, labels, points_of(model), sequential=True)
    about = {"concept": "topic", "labels": ["a", "b", "c"], "model_weights": digest_weights(tmp_path / "model")}
    points = {name: ErasedPoint(eraser, 7, 1e-12, 0.1) for name, eraser in erasers.items()}
    for place in ("erasers", "again"):
        write_erasers(tmp_path / place, points, about)
    for name in ("erasers.safetensors", "erasers.json"):
        assert (tmp_path / "erasers" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    found, record = read_erasers(tmp_path / "erasers")
    assert list(found) == points_of(model) and record["concept"] == "topic"
    assert all(torch.equal(found[point].left, erasers[point].left) for point in found)
    ids = torch.tensor([texts[0].ids])
    attach(model, erasers)
    loaded = load_scrubbed(tmp_path / "model", tmp_path / "erasers")
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    other, _, _ = build(kind, torch.float32)
    next(other.parameters()).data.add_(1.0)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"fitted on the weights \w{8}, and .*other has"):
        load_scrubbed(tmp_path / "other", tmp_path / "erasers")
    with pytest.raises(DataError, match="No erasers in"):
        read_erasers(tmp_path / "model")
    with pytest.raises(ModelError, match="has no 'elsewhere'"):
        attach(model, {"elsewhere": erasers[points_of(model)[0]]})
