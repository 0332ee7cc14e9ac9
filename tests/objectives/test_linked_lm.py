"""LinkBERT's loss against BERT's own two losses at float64, and what its corrupted rows are."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForPreTraining

sys.path += [str(Path(__file__).parent.parent / "models"), str(Path(__file__).parent.parent / "training")]
from tiny_encoders import SIZES, VOCAB, tiny_encoder
from two_hop_world import SEQ_LEN, world_tokenizer

from genai_core.config.masking import Masking
from genai_core.config.objectives import LinkedLm, MaskedLm
from genai_core.data.collate import collate
from genai_core.data.linked_rows import pair_row
from genai_core.data.masking import Masker, Vocabulary
from genai_core.errors import DataError, ModelError
from genai_core.models.backbone import causal_model
from genai_core.models.row_head import add_row_head, load_row_head, row_logits, save_row_head, take_row_head
from genai_core.objectives.base import IGNORE_INDEX, Weighted
from genai_core.objectives.linked_lm import LinkedLmObjective, relation_loss, second_text
from genai_core.objectives.masked_lm import MaskedLmObjective
from genai_core.objectives.registry import build_objectives
from genai_core.training.parallel import Group
from genai_core.training.step import accumulate_gradients, view_of

MASK, START, END, PAD = 2, 3, 4, 0
MASKER = Masker(Masking(rate=0.3), Vocabulary(MASK, np.arange(VOCAB) < 5, np.ones(VOCAB, dtype=bool)))


def objective(weight: float = 1.0) -> LinkedLmObjective:
    return LinkedLmObjective(MASKER, 0, start_id=START, end_id=END, relation_weight=weight)


def batch(relations=(0, 1, 1, 0)):
    """Return pairs of uneven length, some padded."""
    rng = np.random.default_rng(0)
    texts = [(rng.integers(5, VOCAB, 3 + at).tolist(), rng.integers(5, VOCAB, 6 - at).tolist()) for at in range(4)]
    rows = [
        pair_row(relation, first, second[: 4 + at], 14, end=END, pad=PAD)
        for at, (relation, (first, second)) in enumerate(zip(relations, texts, strict=True))
    ]
    return {**collate(rows), "noise": torch.arange(4) + 7, "place": torch.arange(4) / 4}


def gradients(model, one, *given, shards=False):
    model.zero_grad()
    group = Group(0, 1, torch.device("cpu"))
    group.shards = shards
    seeds = [0] * len(given)
    figures = accumulate_gradients(model, [Weighted(one, 1.0)], given, group=group, precision="float64", seeds=seeds)
    return figures, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_with_two_relations_it_is_berts_pre_training_loss() -> None:
    """Masked LM and next-sentence prediction of BertForPreTraining, loss and every gradient, within 1e-9."""
    model = tiny_encoder("bert", pad_token_id=PAD)
    add_row_head(model, 2, seed=0)
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    sizes = {"vocab_size": VOCAB, "max_position_embeddings": 66, "pad_token_id": PAD}
    theirs = BertForPreTraining(BertConfig(**SIZES, **sizes, **quiet)).double()
    theirs.bert.load_state_dict(model.bert.state_dict(), strict=False)
    theirs.cls.predictions.load_state_dict(model.cls.predictions.state_dict())
    head = model.row_head
    torch.nn.init.normal_(head.classifier.weight, std=0.5)
    pairs = {theirs.bert.pooler.dense: head.pooler, theirs.cls.seq_relationship: head.classifier}
    for their, our in pairs.items():
        their.load_state_dict(our.state_dict())
    given = batch()
    view = view_of(Weighted(objective(), 1.0), given, 0.0)
    assert bool((view["labels"] != IGNORE_INDEX).any(dim=1).all())
    out = theirs(
        input_ids=view["input_ids"],
        token_type_ids=view["token_types"],
        attention_mask=(view["segment_ids"] == 0).long(),
        labels=view["labels"],
        next_sentence_label=view["relation"],
    )
    out.loss.backward()
    figures, slopes = gradients(model, objective(), given)
    assert figures.loss == pytest.approx(float(out.loss.detach()), abs=1e-9)
    assert figures.counts["relation"] == 4
    expected = {name: one.grad for name, one in theirs.named_parameters()}
    for name, slope in slopes.items():
        match name.split("."):
            case ["row_head", "pooler", part]:
                their_name = f"bert.pooler.dense.{part}"
            case ["row_head", "classifier", part]:
                their_name = f"cls.seq_relationship.{part}"
            case _:
                their_name = name
        torch.testing.assert_close(slope, expected[their_name], rtol=0, atol=1e-9, msg=name)
    assert float(slopes["row_head.pooler.weight"].abs().max()) > 1e-6


def test_a_micro_batch_without_a_pair_changes_nothing() -> None:
    """A rank that holds a cut of the model runs blank passes, and brings the names of all terms to the sums."""
    model = tiny_encoder("bert", pad_token_id=PAD)
    add_row_head(model, 3, seed=0)
    given = batch((0, 1, 2, 0))
    figures, slopes = gradients(model, objective(), given)
    more, same = gradients(model, objective(), given, {name: one[:0] for name, one in given.items()}, shards=True)
    assert (more.loss, more.terms, more.metrics) == (figures.loss, figures.terms, figures.metrics)
    assert all(torch.equal(slopes[name], same[name]) for name in slopes)


def test_without_a_weight_the_gradient_is_that_of_masked_lm() -> None:
    model = tiny_encoder("bert", pad_token_id=PAD)
    add_row_head(model, 3, seed=0)
    given = batch((0, 1, 2, 0))
    _, linked = gradients(model, objective(0.0), given)
    view = view_of(Weighted(objective(), 1.0), given, 0.0)

    class AsShown(MaskedLmObjective):
        def corrupt(self, batch, progress):
            return view

    _, plain = gradients(model, AsShown(MASKER), given)
    for name, slope in plain.items():
        torch.testing.assert_close(linked[name], slope, rtol=0, atol=0)
    assert all(float(linked[name].abs().max()) == 0 for name in linked if name.startswith("row_head"))
    _, both = gradients(model, objective(1.0), given)
    assert (
        float(
            (both["bert.embeddings.word_embeddings.weight"] - linked["bert.embeddings.word_embeddings.weight"])
            .abs()
            .max()
        )
        > 0
    )


def test_a_new_head_knows_nothing() -> None:
    model = tiny_encoder("bert")
    with pytest.raises(ModelError, match="has no head for that"):
        row_logits(model, torch.zeros(1, 4, 32))
    add_row_head(model, 3, seed=0)
    logits = row_logits(model, torch.randn(6, 4, 32, dtype=torch.float64)).detach()
    assert float(relation_loss(logits, torch.arange(6) % 3)) / 6 == pytest.approx(math.log(3), abs=0.02)
    assert float(relation_loss(torch.zeros(2, 3), torch.tensor([0, 2]))) / 2 == pytest.approx(math.log(3), abs=1e-6)


def test_a_head_is_taken_off_saved_and_found_again(tmp_path) -> None:
    model, other = tiny_encoder("bert"), tiny_encoder("bert")
    names = set(model.state_dict())
    add_row_head(model, 3, seed=1)
    assert set(model.state_dict()) > names
    assert all(one.requires_grad for one in causal_model(model).row_head.parameters())
    head = take_row_head(model)
    assert head is not None
    assert set(model.state_dict()) == names
    assert take_row_head(model) is None
    torch.nn.init.normal_(head.classifier.bias)
    save_row_head(head, tmp_path)
    add_row_head(other, 3, seed=2, folder=tmp_path)
    assert torch.equal(other.row_head.classifier.bias, head.classifier.bias)
    loaded = load_row_head(tmp_path)
    assert all(
        torch.equal(one.double(), two.double()) for one, two in zip(head.parameters(), loaded.parameters(), strict=True)
    )
    add_row_head(other, 2, seed=2, folder=tmp_path)
    assert len(other.row_head.classifier.bias) == 2, "a head of another size is not the one"


def test_rows_are_shown_with_their_opening_token_and_types() -> None:
    given = batch((2, 1, 0, 2))
    view = objective().corrupt(given, 0.0)
    assert view["relation"].tolist() == [2, 1, 0, 2]
    assert (view["input_ids"][:, 0] == START).all()
    ids = torch.tensor([[END, 7, 8, END, 9, END, PAD]])
    assert second_text(ids, END).tolist() == [[0, 0, 0, 0, 1, 1, 1]], "also where a text is opened and closed alike"
    hidden = view["labels"] != IGNORE_INDEX
    assert torch.equal(view["labels"][hidden], given["input_ids"][hidden])
    assert not hidden[:, 0].any()
    assert not hidden[given["input_ids"] < 5].any(), "no special token is hidden"
    with pytest.raises(
        DataError, match="Rows of pairs begin with the number of their relation, 0 to 2; one begins with 9"
    ):
        objective().corrupt({**given, "input_ids": given["input_ids"] * 0 + 9}, 0.0)


def test_the_registry_takes_the_tokenizers_own_ends() -> None:
    tokenizer = world_tokenizer()
    (one,) = build_objectives(LinkedLm(), tokenizer)
    assert isinstance(one.objective, LinkedLmObjective)
    row = pair_row(2, [9, 10], [11], SEQ_LEN, end=tokenizer.sep_token_id, pad=0)
    given = {**collate([row]), "noise": torch.zeros(1, dtype=torch.int64), "place": torch.zeros(1)}
    assert int(view_of(one, given, 0.0)["input_ids"][0, 0]) == tokenizer.cls_token_id
    assert isinstance(build_objectives(MaskedLm(), tokenizer)[0].objective, MaskedLmObjective)
