"""InfoNCE over the documents of a step: closed forms, torch's cross-entropy, sentence-transformers and transformers, at float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel

from genai_core.config.objectives import Contrastive
from genai_core.models.backbone import keep_float64, see_segments
from genai_core.objectives.contrastive import (
    ContrastiveObjective,
    contrastive_loss,
    contrastive_scores,
    hash_segments,
    known_positives,
    pool_segments,
)
from genai_core.objectives.registry import build_objectives


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss_of(queries, documents, temperature=0.1, excluded=None):
    return contrastive_loss(contrastive_scores(queries, documents, temperature=temperature, excluded=excluded))


def test_it_is_cross_entropy_over_scaled_cosines_of_all_documents() -> None:
    queries, documents = random(6, 5), random(6, 3, 5, seed=1)
    scores = F.cosine_similarity(queries[:, None], documents.flatten(0, 1)[None], dim=-1) / 0.1
    expected = F.cross_entropy(scores, torch.arange(6) * 3, reduction="none")
    torch.testing.assert_close(loss_of(queries, documents), expected, rtol=0, atol=1e-12)


def test_equal_texts_cost_the_log_of_the_number_of_documents() -> None:
    found = loss_of(torch.ones(7, 3).double(), torch.ones(7, 2, 3).double())
    torch.testing.assert_close(found, torch.full((7,), math.log(14)).double())


def test_it_knows_direction_not_length_nor_order_but_partners() -> None:
    queries, documents = random(6, 5), random(6, 2, 5, seed=1)
    loss = loss_of(queries, documents)
    torch.testing.assert_close(loss_of(3 * queries, 0.5 * documents), loss, rtol=0, atol=1e-12)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(loss_of(queries[order], documents[order]), loss[order], rtol=0, atol=1e-12)
    assert float((loss_of(queries, documents.roll(1, 0)) - loss).abs().max()) > 0.1


def test_its_gradient_is_checked_also_with_documents_left_out() -> None:
    queries, documents = random(4, 3).requires_grad_(), random(4, 2, 3, seed=1).requires_grad_()
    excluded = torch.zeros(4, 8, dtype=torch.bool)
    excluded[0, 3] = excluded[2, 1] = True
    assert torch.autograd.gradcheck(lambda q, d: loss_of(q, d, 0.3, excluded), (queries, documents))


class Given(nn.Module):
    """A sentence-transformers module that makes a vector of what it is given: one matrix, so that gradients compare."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**features, "sentence_embedding": features["input_ids"] @ self.matrix}


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
def test_value_and_gradient_are_those_of_sentence_transformers(cached: bool) -> None:
    """MultipleNegativesRankingLoss and its cached variant of sentence-transformers 6.2.0, scale 1 / temperature."""
    losses = pytest.importorskip("sentence_transformers.losses")
    texts, matrix = random(8, 3, 7), random(7, 5, seed=2)  # 8 times a query, its document, a hard negative
    model = nn.Sequential(Given(matrix))
    if cached:
        theirs = losses.CachedMultipleNegativesRankingLoss(model, scale=50.0, mini_batch_size=3)
    else:
        theirs = losses.MultipleNegativesRankingLoss(model, scale=50.0)
    features = [{"input_ids": texts[:, at], "attention_mask": torch.ones(8, 7)} for at in range(3)]
    value = theirs(features, torch.zeros(8))
    value.backward()
    ours = nn.Parameter(matrix.clone())
    vectors = texts @ ours
    loss = loss_of(vectors[:, 0], vectors[:, 1:], temperature=0.02).mean()
    loss.backward()
    assert float(value.detach()) == pytest.approx(float(loss.detach()), abs=1e-10)
    torch.testing.assert_close(ours.grad, model[0].matrix.grad, rtol=0, atol=1e-10)


IDS = torch.tensor([[9, 4, 5, 9, 6, 7, 8, 0], [9, 3, 9, 2, 2, 9, 1, 5]])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 1, 1, 1, 2, 2, 2]])
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 0, 1, 2, 0, 1, 2]])
LABELS = torch.where(torch.tensor([[0, 1, 1, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0, 0, 1]]) > 0, IDS, -100)
BATCH = {"input_ids": IDS, "segment_ids": SEGMENTS, "position_ids": POSITIONS, "labels": LABELS}


def test_only_marked_tokens_are_pooled_in_wide_numbers() -> None:
    hidden = random(2, 8, 3)
    found = pool_segments(hidden, SEGMENTS, LABELS != -100, 3, "mean")
    expected = [
        [hidden[0, 1:3].mean(0), hidden[0, 4:6].mean(0), torch.zeros(3).double()],
        [hidden[1, 1], hidden[1, 3:5].mean(0), hidden[1, 7]],
    ]
    torch.testing.assert_close(found, torch.stack([torch.stack(row) for row in expected]), rtol=0, atol=1e-12)
    later = pool_segments(hidden, SEGMENTS, LABELS != -100, 3, "weighted_mean")
    torch.testing.assert_close(later[0, 0], (hidden[0, 1] + 2 * hidden[0, 2]) / 3, rtol=0, atol=1e-12)
    assert pool_segments(hidden.bfloat16(), SEGMENTS, LABELS != -100, 3, "mean").dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        narrow = pool_segments(hidden.float(), SEGMENTS, LABELS != -100, 3, "mean")
    torch.testing.assert_close(narrow, found.float(), rtol=0, atol=1e-6)


def test_a_packed_row_has_the_vectors_of_its_texts_alone_under_plain_transformers() -> None:
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaModel(config).double().eval().requires_grad_(False)
    keep_float64(model)
    mask = see_segments(SEGMENTS).unsqueeze(1)
    hidden = model(input_ids=IDS, position_ids=POSITIONS, attention_mask=mask, use_cache=False).last_hidden_state
    found = pool_segments(hidden, SEGMENTS, LABELS != -100, 2, "mean")
    for row, segment in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = SEGMENTS[row] == segment
        alone = model(
            input_ids=IDS[row, at][None],
            attention_mask=torch.zeros(1, 1, int(at.sum()), int(at.sum())).double(),  # nothing is masked
            use_cache=False,
        ).last_hidden_state[0]
        pooled = (LABELS[row, at] != -100).double()
        torch.testing.assert_close(found[row, segment], pooled @ alone / pooled.sum(), rtol=0, atol=1e-12)
        causal = model(input_ids=IDS[row, at][None], use_cache=False).last_hidden_state[0]
        assert float((causal - alone).abs().max()) > 1e-3, "the mode makes a difference"


def test_equal_segments_have_equal_hashes_and_others_do_not() -> None:
    ids = torch.tensor([[5, 6, 5, 6, 6, 5], [5, 6, 6, 5, 5, 6]])
    segments = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]])
    positions = torch.tensor([[0, 1, 0, 1, 0, 1]] * 2)
    found = hash_segments(ids, positions, segments, 3)
    assert found[0, 0] == found[0, 1] == found[1, 0] == found[1, 2]
    assert found[0, 2] == found[1, 1] != found[0, 0], "order matters"
    many = hash_segments(
        torch.arange(30_000).reshape(-1, 3),
        torch.tensor([[0, 1, 2]]).expand(10_000, -1),
        torch.zeros(10_000, 3).long(),
        1,
    )
    assert len(many.unique()) == 10_000
    bits = (many[:, 0, None] >> torch.arange(64)) & 1
    assert float((bits.double().mean(0) - 0.5).abs().max()) < 0.03, "every bit is used"


def test_a_document_that_is_right_for_an_equal_query_is_known() -> None:
    queries = torch.tensor([1, 2, 1])  # the first and the third are equal
    documents = torch.tensor([[10, 20], [30, 10], [40, 30]])
    expected = [[1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0]]
    assert known_positives(queries, documents).int().tolist() == expected


def represented(
    rows: int = 5, *, ids: torch.Tensor, source: list[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the representations of rows of two tokens a segment, and the vectors in them."""
    length = ids.shape[1]
    batch = {
        "input_ids": ids,
        "segment_ids": (torch.arange(length) // 2).expand(rows, -1),
        "position_ids": (torch.arange(length) % 2).expand(rows, -1),
        "labels": torch.where(torch.arange(length) % 2 == 1, ids, -100),
        **({} if source is None else {"source": torch.tensor(source)}),
    }
    hidden = random(rows, length, 6)
    found = ContrastiveObjective(0.1, negatives=length // 2 - 2).represent({"hidden": hidden}, batch)
    return found, hidden[:, 1::2]


def plain_ids(rows: int, segments: int) -> torch.Tensor:
    return torch.arange(rows * segments * 2).reshape(rows, -1) + 1


def test_repeated_queries_and_documents_do_not_punish_right_answers() -> None:
    ids = plain_ids(4, 3)
    ids[2, 2:4] = ids[0, 2:4]  # row 2 has the document of row 0
    ids[3, 0:2] = ids[1, 0:2]  # row 3 has the query of row 1
    representations, vectors = represented(4, ids=ids)
    found = ContrastiveObjective(0.1, negatives=1).couple(representations)
    excluded = torch.zeros(4, 8, dtype=torch.bool)
    excluded[0, 4] = excluded[2, 0] = excluded[1, 6] = excluded[3, 2] = True
    expected = loss_of(vectors[:, 0], vectors[:, 1:], 0.1, excluded)
    assert float(found.terms["contrastive"].loss_sum) == pytest.approx(float(expected.sum()), abs=1e-12)
    assert float(found.metrics["known_positives_left_out"].total) == 4
    assert float((expected - loss_of(vectors[:, 0], vectors[:, 1:])).abs().min()) > 1e-6, (
        "each would have been punished"
    )


def test_documents_of_another_dataset_are_no_negatives() -> None:
    representations, vectors = represented(5, ids=plain_ids(5, 2), source=[0, 1, 0, 1, 0])
    total = ContrastiveObjective(0.1).couple(representations).terms["contrastive"].loss_sum
    apart = [loss_of(vectors[part, 0], vectors[part, 1:]).sum() for part in ([0, 2, 4], [1, 3])]
    assert float(total) == pytest.approx(float(sum(apart)), abs=1e-12)


def test_rows_without_a_pair_are_not_counted_and_missing_negatives_are_no_documents() -> None:
    ids = plain_ids(5, 3)
    representations, vectors = represented(5, ids=ids)
    width = vectors.shape[-1]
    representations[1, 2, width] = 0  # no hard negative
    representations[4, 1, width] = 0  # no document
    representations.requires_grad_()
    found = ContrastiveObjective(0.1, negatives=1).couple(representations).terms["contrastive"]
    excluded = torch.zeros(4, 8, dtype=torch.bool)
    excluded[:, 3] = True
    expected = loss_of(vectors[:4, 0], vectors[:4, 1:], 0.1, excluded).sum()
    assert (float(found.loss_sum.detach()), int(found.count)) == (pytest.approx(float(expected), abs=1e-12), 4)
    (slope,) = torch.autograd.grad(found.loss_sum, representations)
    assert float(slope[4].abs().max()) == 0.0
    assert float(slope[..., width:].abs().max()) == 0.0, "what tells texts apart has no gradient"
    assert int(ContrastiveObjective(0.1, negatives=1).counts(BATCH)["contrastive"]) == 2


def test_a_step_without_a_pair_has_no_loss_and_a_gradient_of_zero() -> None:
    representations, _ = represented(2, ids=plain_ids(2, 2))
    representations[:, 1, 6] = 0
    representations.requires_grad_()
    found = ContrastiveObjective(0.1).couple(representations)
    (slope,) = torch.autograd.grad(found.terms["contrastive"].loss_sum, representations)
    assert float(found.terms["contrastive"].loss_sum.detach()) == float(slope.abs().max()) == 0.0


def test_accuracy_is_the_share_of_nearest_documents() -> None:
    representations, _ = represented(4, ids=plain_ids(4, 2))
    representations[:, 0, :6] = torch.eye(6)[:4].double()
    representations[:, 1, :6] = torch.eye(6)[[0, 1, 3, 2]].double()
    metric = ContrastiveObjective(0.1).couple(representations).metrics["contrastive_accuracy"]
    assert isinstance(metric.total, torch.Tensor)
    assert (int(metric.total), int(metric.count)) == (2, 4)


def test_the_registry_builds_it() -> None:
    [one] = build_objectives(Contrastive(attention="causal", negatives=2))
    [forward] = one.objective.forwards()
    assert (forward.attention, one.weight) == ("causal", 1.0)
