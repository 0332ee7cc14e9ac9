"""Encoders in the engine against transformers' own heads at float64: loss and every gradient, on whole and packed rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_encoders import FAMILIES, VOCAB, tiny_encoder
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from genai_core.config.masking import Masking
from genai_core.config.model import FolderBase, LoraAdapter, ScratchBase
from genai_core.data.masking import Masker, Vocabulary
from genai_core.errors import ModelError
from genai_core.evaluation.pseudo_likelihood import pseudo_logps
from genai_core.models import encoder_names, encoders
from genai_core.models.adapters import add_adapter, merge_adapter
from genai_core.models.backbone import hidden_states
from genai_core.models.families import load_any
from genai_core.models.load import init_scratch, load_base, load_model, save_model
from genai_core.models.probes import run_probes
from genai_core.models.resolve import resolve_base
from genai_core.objectives.base import IGNORE_INDEX, Batch, Weighted
from genai_core.objectives.masked_lm import MaskedLmObjective
from genai_core.training.parallel import Group
from genai_core.training.step import accumulate_gradients

MASK, CLS, SEP = 2, 3, 4
VOCABULARY = Vocabulary(MASK, np.arange(VOCAB) < 5, np.ones(VOCAB, dtype=bool))


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of numbered words."""
    special = ["[UNK]", "[PAD]", "[MASK]", "[CLS]", "[SEP]"]
    words = {word: number for number, word in enumerate([*special, *(f"w{at}" for at in range(5, VOCAB))])}
    roles = dict(zip(("unk_token", "pad_token", "mask_token", "cls_token", "sep_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, "[UNK]")), **roles)


def load_folder(path: Path) -> Any:
    """Return the model of a folder that a recipe names as its base."""
    base = FolderBase(path=str(path))
    ref = resolve_base(base)
    assert ref is not None
    return load_base(base, ref)[0]


class Shown(MaskedLmObjective):
    """The objective on rows that somebody else has masked."""

    def __init__(self) -> None:
        super().__init__(Masker(Masking(), VOCABULARY))

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the rows as they are."""
        return batch


def packed(lengths: Sequence[Sequence[int]], *, seed: int = 0) -> dict[str, Tensor]:
    """Return rows of these segment lengths, equally long, a third of their tokens masked."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), sum(lengths[0]))
    ids = torch.randint(5, VOCAB, shape, generator=generator)
    hidden = torch.rand(shape, generator=generator) < 0.34
    positions = torch.stack([torch.cat([torch.arange(one) for one in row]) for row in lengths])
    segments = torch.stack([torch.cat([torch.full((one,), at) for at, one in enumerate(row)]) for row in lengths])
    return {
        "input_ids": torch.where(hidden, MASK, ids),
        "labels": torch.where(hidden, ids, IGNORE_INDEX),
        "position_ids": positions,
        "segment_ids": segments,
    }


def ours(model: Any, batch: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Return the engine's loss and gradients."""
    model.zero_grad()
    group = Group(0, 1, torch.device("cpu"))
    figures = accumulate_gradients(
        model, [Weighted(Shown(), 1.0)], [batch], group=group, precision="float64", seeds=[0]
    )
    return figures.loss, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def theirs(model: Any, rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, dict[str, Tensor]]:
    """Return transformers' loss and gradients of texts that never met, the mean over all their hidden tokens."""
    model.zero_grad()
    total = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in rows)
    loss = sum(
        their_loss(model, ids, labels) * int((labels != IGNORE_INDEX).sum())
        for ids, labels in rows
        if bool((labels != IGNORE_INDEX).any())
    )
    (loss / total).backward()
    return float(loss.detach() / total), {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }


def their_loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Return transformers' mean loss of one text; ModernBERT's own goes through float32, so its logits are taken."""
    out = model(input_ids=ids[None], labels=labels[None])
    if model.config.model_type == "modernbert":
        return torch.nn.functional.cross_entropy(out.logits[0], labels)
    return out.loss


def compare(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]) -> None:
    """Assert that loss and gradients are the same."""
    assert found[0] == pytest.approx(expected[0], abs=1e-9)
    assert found[1].keys() == expected[1].keys()
    for name, slope in expected[1].items():
        torch.testing.assert_close(found[1][name], slope, rtol=0, atol=1e-9, msg=name)
        assert float(slope.abs().max()) > 0 or "key.bias" in name or "k_lin.bias" in name, f"{name} is not reached"


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers(family: str) -> None:
    model, batch = tiny_encoder(family), packed([[16]])
    compare(ours(model, batch), theirs(model, [(batch["input_ids"][0], batch["labels"][0])]))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_texts_are_as_if_each_stood_alone(family: str) -> None:
    lengths = [[10, 7, 4, 3], [5, 19], [24]]
    model, batch = tiny_encoder(family), packed(lengths, seed=1)
    texts = [
        (ids, labels)
        for row, parts in enumerate(lengths)
        for ids, labels in zip(batch["input_ids"][row].split(parts), batch["labels"][row].split(parts), strict=True)
    ]
    compare(ours(model, batch), theirs(model, texts))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_rows_of_transformers_collator_have_its_loss(family: str) -> None:
    """Texts of unequal length, padded and masked by their collator: padding is a segment of its own here."""
    torch.manual_seed(0)
    model, tokenizer = tiny_encoder(family), small_tokenizer()
    texts = [[CLS, *torch.randint(5, VOCAB, (length,)).tolist(), SEP] for length in (20, 9, 14)]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3, seed=1)
    made = collator([{"input_ids": ids} for ids in texts])
    assert int((made["labels"] != IGNORE_INDEX).sum()) > 5
    model.zero_grad()
    loss = model(**made).loss
    loss.backward()
    slopes = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    inside = made["attention_mask"].bool()
    places = torch.arange(made["input_ids"].shape[1])
    batch = {
        "input_ids": made["input_ids"],
        "labels": made["labels"],
        "segment_ids": (~inside).long(),
        "position_ids": torch.where(inside, places, places - inside.sum(1, keepdim=True)),
    }
    compare(ours(model, batch), (float(loss.detach()), slopes))


def test_our_masker_hides_as_their_collator_does() -> None:
    """15 % of the ordinary tokens; of these 80 % masked, 10 % random, 10 % kept: both, within 4 standard errors."""
    row = np.array([CLS, *(5 + np.arange(126) % 56), SEP])
    tokenizer, masker = small_tokenizer(), Masker(Masking(), VOCABULARY)
    collator = DataCollatorForLanguageModeling(tokenizer, seed=0)
    visits = 400
    made = collator([{"input_ids": row.tolist()} for _ in range(visits)])
    rng = np.random.Generator(np.random.PCG64(0))
    noisy, hidden = zip(
        *(masker.hide(row, np.ones(len(row), dtype=bool), 0.15, rng) for _ in range(visits)), strict=True
    )
    for ids, chosen in (
        (made["input_ids"].numpy(), made["labels"].numpy() != IGNORE_INDEX),
        (np.stack(noisy), np.stack(hidden)),
    ):
        count = chosen.sum()
        assert not chosen[:, [0, -1]].any()
        assert count / (126 * visits) == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / (126 * visits)) ** 0.5)
        assert (ids[chosen] == MASK).mean() == pytest.approx(0.8, abs=4 * (0.16 / count) ** 0.5)
        same = (ids == row)[chosen].mean()  # kept, or drawn by chance
        assert same == pytest.approx(0.1 + 0.1 / 58, abs=4 * (0.09 / count) ** 0.5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_probes_pass(family: str, dtype: torch.dtype) -> None:
    run_probes(tiny_encoder(family, dtype))


@pytest.mark.parametrize("fault", ["transform", "positions", "isolation"])
def test_the_probes_find_what_is_wrong(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, states, complaint = tiny_encoder("roberta"), None, "its logits differ"
    match fault:
        case "transform":
            monkeypatch.setitem(encoders.TRANSFORMS, "roberta", lambda model, hidden: hidden)
        case "positions":
            monkeypatch.setattr(encoders, "_first_position", lambda body: 0)
        case "isolation":
            complaint = "the second document of a packed row sees the first"

            def states(ids: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
                return hidden_states(model, ids, positions, torch.ones_like(seen))

    with pytest.raises(ModelError, match=complaint):
        run_probes(model, states)


def test_a_bias_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genai_core.models.backbone.head_bias", lambda model: None)
    with pytest.raises(ModelError, match="its logits differ"):
        run_probes(tiny_encoder("bert"))


def test_a_window_stays_a_window_under_our_mask() -> None:
    """ModernBERT's middle layer sees 3 tokens to either side; a full mask in its place gives other states."""
    model, batch = tiny_encoder("modernbert"), packed([[16]])
    ids, positions, seen = batch["input_ids"], batch["position_ids"], torch.ones(1, 16, 16, dtype=torch.bool)
    with torch.no_grad():
        own = model.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(hidden_states(model, ids, positions, seen), own, rtol=0, atol=1e-12)
        wide = model.base_model(input_ids=ids, position_ids=positions, attention_mask=seen[:, None]).last_hidden_state
    assert float((wide - own).abs().max()) > 1e-3


def test_token_types_reach_a_model_that_knows_them() -> None:
    batch = packed([[16]])
    types = (torch.arange(16) > 8).long()[None]
    given = (batch["input_ids"], batch["position_ids"], torch.ones(1, 16, 16, dtype=torch.bool))
    with torch.no_grad():
        bert, roberta = tiny_encoder("bert"), tiny_encoder("roberta")
        expected = bert.base_model(input_ids=given[0], token_type_ids=types).last_hidden_state
        torch.testing.assert_close(hidden_states(bert, *given, types), expected, rtol=0, atol=1e-12)
        assert float((hidden_states(bert, *given) - expected).abs().max()) > 1e-3
        torch.testing.assert_close(hidden_states(roberta, *given, types), hidden_states(roberta, *given))


def test_the_families_are_those_whose_heads_are_known() -> None:
    assert tuple(encoders.TRANSFORMS) == encoder_names.FAMILIES


def test_reading_from_left_to_right_is_refused() -> None:
    model, batch = tiny_encoder("bert"), packed([[16]])
    with pytest.raises(ModelError, match="BertForMaskedLM is an encoder and sees both sides"):
        hidden_states(model, batch["input_ids"], batch["position_ids"])


def test_pseudo_likelihood_is_one_pass_of_transformers_a_token() -> None:
    model = tiny_encoder("roberta")
    text = [CLS, 9, 17, 30, 9, SEP]
    found = pseudo_logps(model, text, VOCABULARY)
    expected = []
    for at in range(1, 5):
        ids = torch.tensor([text])
        ids[0, at] = MASK
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, at]
        logits[MASK] = -torch.inf  # the mask is never the answer
        expected.append(float(logits.log_softmax(-1)[text[at]]))
    torch.testing.assert_close(found[1:5], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(found[0]) == float(found[5]) == 0


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_from_scratch_saved_and_loaded(architecture: str, tmp_path) -> None:
    tokenizer = small_tokenizer()
    base = ScratchBase(
        architecture=architecture, n_layers=2, d_model=32, n_heads=2, n_kv_heads=2, d_ff=48, max_seq_len=24
    )
    model, again = (init_scratch(base, tokenizer) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    if architecture != "modernbert":
        assert encoders.positions_taken(model) == 24
    run_probes(model)
    for place, one in (("a", model), ("b", again)):
        save_model(one, tokenizer, tmp_path / place)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    ids = torch.tensor([[CLS, 7, MASK, 9, SEP]])
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "a").eval()
        torch.testing.assert_close(plain(input_ids=ids).logits, expected, rtol=0, atol=0)
        ours, family = load_any(tmp_path / "a")
        assert family == "masked"
        torch.testing.assert_close(ours(input_ids=ids).logits, expected, rtol=0, atol=0)
    with pytest.raises(ModelError, match=r"is an encoder \(\w+ForMaskedLM\).*cannot write text"):
        load_model(tmp_path / "a")


def test_a_bare_body_gets_the_same_head_every_time(tmp_path) -> None:
    """A sentence encoder comes without a masked-LM head."""
    tiny_encoder("bert", torch.float32).base_model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertModel"]
    small_tokenizer().save_pretrained(tmp_path)
    first, second = (load_folder(tmp_path) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))
    assert isinstance(first.cls.predictions, BertLMPredictionHead)


def test_a_family_that_is_not_known_is_refused(tmp_path) -> None:
    from transformers import AlbertConfig, AlbertForMaskedLM

    sizes = {
        "vocab_size": VOCAB,
        "embedding_size": 16,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
    }
    AlbertForMaskedLM(AlbertConfig(**sizes, num_hidden_layers=1)).save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"AlbertForMaskedLM: where its head's parts are is not known.*modernbert"):
        load_folder(tmp_path)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_an_adapter_is_trained_and_merged(family: str) -> None:
    model, batch = tiny_encoder(family), packed([[16]])
    adapted = add_adapter(model, LoraAdapter(rank=2, alpha=4), seed=0)
    _, slopes = ours(adapted, batch)
    assert slopes
    assert all("lora" in name for name in slopes)
    run_probes(adapted)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        expected = adapted(input_ids=batch["input_ids"]).logits
        merged = merge_adapter(adapted)
        torch.testing.assert_close(merged(input_ids=batch["input_ids"]).logits, expected, rtol=0, atol=1e-9)


def test_the_names_of_encoders_that_need_no_torch_are_those_whose_parts_are_known() -> None:
    assert set(encoder_names.FAMILIES) == set(encoders.TRANSFORMS)
