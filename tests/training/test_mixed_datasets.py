"""Several datasets and growing rows, through the real engine: terms see their own rows, and the weights are exact."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_run import (
    SEQ_LEN,
    MemoryLog,
    alone,
    check_cuts_and_a_stop,
    run_small,
    small_config,
    small_model,
    small_rows,
    small_tokenizer,
)

from genai_core.config.base import canonical
from genai_core.config.objectives import CausalLm, Contrastive, MaskedLm, MixedDataset, Mixture, MixtureTerm
from genai_core.config.training import LocalSgd, Sgd, ShorterRows, SpikeConfig
from genai_core.data.mixing import MixedRows
from genai_core.data.packing import pack_examples
from genai_core.objectives.base import IGNORE_INDEX
from genai_core.objectives.registry import build_objectives
from genai_core.training.diagnosis import describe_divergence, worst_rows
from genai_core.training.rows import cut_row, name_row, rows_of_step
from genai_core.training.spikes import HARMLESS, SpikeDetector
from genai_core.training.step import view_of

DATASETS = (MixedDataset(name="text", rows=0.7), MixedDataset(name="pairs", rows=0.3))
OF_BOTH = Mixture(
    datasets=DATASETS,
    terms=(
        MixtureTerm(objective=CausalLm(), dataset="text", weight=2.0),
        MixtureTerm(objective=CausalLm(), dataset="pairs"),
        MixtureTerm(objective=MaskedLm(reads="previous"), dataset="text", rows=0.5, weight=0.3),
    ),
)
GROWING = (ShorterRows(seq_len=4, end=0.3), ShorterRows(seq_len=8, end=0.6))


def text_and_pairs(shares: dict[str, float] | None = None) -> MixedRows:
    """Return rows of words below 30, and rows of words above."""
    generator = np.random.default_rng(0)
    text = [generator.integers(2, 30, SEQ_LEN).tolist() for _ in range(20)]
    rows = pack_examples([(one, [1] * SEQ_LEN) for one in text], SEQ_LEN)
    pairs = [generator.integers(30, 60, SEQ_LEN).tolist() for _ in range(9)]
    supervised = pack_examples([(one, [0] * 6 + [1] * (SEQ_LEN - 6)) for one in pairs], SEQ_LEN)
    return MixedRows({"text": rows, "pairs": supervised}, shares or {one.name: one.rows for one in DATASETS})


def test_each_term_sees_the_rows_of_its_dataset() -> None:
    config = small_config(objective=OF_BOTH)
    text, pairs, masked = build_objectives(OF_BOTH, small_tokenizer())
    shares = []
    for step in range(20):
        visits = rows_of_step(text_and_pairs(), config, step)
        batch = visits.take(slice(0, len(visits.indices)), torch.device("cpu"))
        seen = [view_of(one, batch, 0.0) for one in (text, pairs, masked)]
        assert bool((seen[0]["input_ids"] < 30).all()) and bool((seen[1]["input_ids"] >= 30).all())
        assert len(seen[0]["input_ids"]) + len(seen[1]["input_ids"]) == 8
        assert bool((seen[2]["labels"].clamp_min(0) < 30).all())
        shares.append(len(seen[2]["input_ids"]) / len(seen[0]["input_ids"]))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05), "half of the rows of its dataset"


def test_terms_of_one_kind_on_two_datasets_are_told_apart(tmp_path) -> None:
    log = MemoryLog()
    run_small(tmp_path, small_model(), small_config(objective=OF_BOTH), rows=text_and_pairs(), log=log)
    at = next(values for _, values in log.points if "train/loss" in values)
    assert {"loss/causal_lm_text", "loss/causal_lm_pairs", "loss/mntp_text"} <= set(at)
    expected = 2 * at["loss/causal_lm_text"] + at["loss/causal_lm_pairs"] + 0.3 * at["loss/mntp_text"]
    assert at["train/loss"] == pytest.approx(expected, abs=1e-12)
    assert log.curve("grad_norm/causal_lm_pairs")[0] > 0


def test_the_worst_rows_of_a_diverged_run_are_named_by_their_dataset() -> None:
    rows, config = text_and_pairs(), small_config(objective=OF_BOTH)
    visits, objectives = rows_of_step(rows, config, 0), build_objectives(OF_BOTH, small_tokenizer())
    found = worst_rows(small_model(), objectives, visits, progress=0.0, precision="float32", group=alone(), shown=8)
    numbers = visits.indices.tolist()
    own = [f"#{number} of 'text'" if number < 20 else f"#{number - 20} of 'pairs'" for number in numbers]
    assert sorted(name for name, _ in found) == sorted(own) and {name.split()[-1] for name in own} == {
        "'text'",
        "'pairs'",
    }
    assert f"rows:      {found[0][0]} loss {found[0][1]:.4g}" in describe_divergence("no", 3, {}, found, [])
    assert name_row(small_rows(), 7) == "#7"


@pytest.mark.parametrize("what", ["datasets", "curriculum"])
def test_micro_batches_and_a_stop_give_the_same_weights(tmp_path, what) -> None:
    if what == "datasets":
        config, rows = small_config(objective=OF_BOTH, steps=12), text_and_pairs()
    else:
        config, rows = small_config(objective=MaskedLm(reads="previous"), curriculum=GROWING, steps=12), small_rows()
    check_cuts_and_a_stop(tmp_path, config, rows=rows)


def test_rows_grow_and_every_step_has_as_many_tokens() -> None:
    config, rows = small_config(curriculum=GROWING), small_rows()
    lengths = []
    for step in range(config.steps):
        visits = rows_of_step(rows, config, step)
        batch = visits.take(slice(2, 5), alone().device)
        assert batch["input_ids"].numel() == 3 * SEQ_LEN
        assert len(batch["noise"]) == len(batch["input_ids"]) == len(set(batch["noise"].tolist()))
        lengths.append(batch["input_ids"].shape[1])
    assert lengths == [4] * 6 + [8] * 6 + [16] * 8


def test_a_cut_row_keeps_its_tokens_and_nothing_is_predicted_across_a_cut() -> None:
    row = pack_examples([(list(range(2, 9)), [1] * 7), (list(range(10, 19)), [1] * 9)], SEQ_LEN).take([0])[0]
    pieces = cut_row(row, 4)
    assert np.concatenate([piece.input_ids for piece in pieces]).tolist() == row.input_ids.tolist()
    assert [piece.seq_lengths.tolist() for piece in pieces] == [[4], [4], [1, 3], [4]]
    whole = small_config(curriculum=(ShorterRows(seq_len=4, end=0.5),))
    batch = rows_of_step(pack_examples([(list(range(2, 18)), [1] * 16)], SEQ_LEN), whole, 0).take(
        slice(0, 1), alone().device
    )
    assert (batch["labels"][:, 0] == IGNORE_INDEX).all() and (batch["position_ids"][:, 0] == 0).all()


def test_only_mixtures_of_three_datasets_have_another_key_since_their_rows_are_shared_out_anew() -> None:
    three = (*DATASETS[:1], MixedDataset(name="pairs", rows=0.2), MixedDataset(name="retrieval", rows=0.1))
    assert "key_revision" not in canonical(OF_BOTH) and "key_revision" not in canonical(Mixture(terms=(MixtureTerm(),)))
    assert canonical(OF_BOTH.model_copy(update={"datasets": three}))["key_revision"] == 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Mixture(datasets=(MixedDataset(name="text", rows=0.7),), terms=(MixtureTerm(),))
    both = (MixedDataset(name="text", rows=0.5), MixedDataset(name="pairs", rows=0.5))
    with pytest.raises(ValueError, match=r"'pairs' has a share .* no term is computed on it"):
        Mixture(datasets=both, terms=(MixtureTerm(dataset="text"),))
    Mixture(datasets=both, terms=(MixtureTerm(),))  # a term of none reads all
    with pytest.raises(ValueError, match="'pairs', but `datasets` has text"):
        Mixture(datasets=(MixedDataset(name="text", rows=1.0),), terms=(MixtureTerm(dataset="pairs"),))
    with pytest.raises(ValueError, match="named twice"):
        Mixture(datasets=(MixedDataset(name="text", rows=0.5),) * 2, terms=(MixtureTerm(),))
    searches = [MixtureTerm(objective=Contrastive(negatives=n), begin=n / 2, end=(n + 1) / 2) for n in (0, 1)]
    with pytest.raises(ValueError, match="embeds in one way"):
        Mixture(terms=tuple(searches))
    with pytest.raises(ValueError, match="cannot be cut into rows of 5"):
        small_config(curriculum=(ShorterRows(seq_len=5, end=0.5),))
    with pytest.raises(ValueError, match="larger than the one before"):
        small_config(curriculum=(ShorterRows(seq_len=4, end=0.5), ShorterRows(seq_len=8, end=0.4)))


def test_steps_without_anything_to_learn_do_not_say_what_is_usual() -> None:
    detector = SpikeDetector(SpikeConfig(factor=4.0, window=8))
    for norm in (0.0, 1.0) * 20:
        assert not detector.judge(1.0, norm)
        detector.accept(norm)
    assert detector.judge(1.0, 5.0)


def test_a_model_that_has_learned_all_of_its_rows_has_no_spikes() -> None:
    """Else a run whose loss has come to 1e-7 ends as a diverged one."""
    detector = SpikeDetector(SpikeConfig())
    for _ in range(32):
        detector.accept(4e-6)
    assert detector.judge(1e-7, 2e-5) == ""
    assert detector.judge(1e-7, HARMLESS / 2) == ""
    assert "is above 4 x 4e-06" in detector.judge(1e-7, 2 * HARMLESS)
    assert "norm is nan" in detector.judge(1e-7, float("nan"))


def test_what_a_model_begins_to_learn_is_no_spike() -> None:
    """Its gradients grow tenfold, at first in some of the steps: four times the usual one, again and again."""
    detector = SpikeDetector(SpikeConfig(factor=4.0, window=64))
    growing = [0.2, 0.2, 0.4] * 20 + [0.2, 0.2, 1.2] * 20 + [0.2, 0.4, 3.0] * 20
    for norm in growing:
        assert not detector.judge(1.0, norm)
        detector.accept(norm)
    assert detector.judge(1.0, 30.0), "and what is, still is"


def test_a_step_is_judged_by_steps_that_learned_from_the_same_terms() -> None:
    """A dataset that every sixth step has a row of, with ten times the gradient: neither a spike, nor does it hide one."""
    detector = SpikeDetector(SpikeConfig(factor=4.0, window=32))
    often, seldom = {"causal_lm": 30.0, "contrastive": 0.0}, {"causal_lm": 28.0, "contrastive": 1.0}
    for step in range(120):
        norm, counts = (10.0, seldom) if step % 6 == 0 else (1.0, often)
        assert not detector.judge(1.0, norm, counts)
        detector.accept(norm, counts)
        if step == 110:
            again = SpikeDetector(SpikeConfig(factor=4.0, window=32))
            again.restore(json.loads(json.dumps(detector.state())))
            detector = again
    assert "4 x 1," in detector.judge(1.0, 5.0, often) and "4 x 10," in detector.judge(1.0, 50.0, seldom)


def test_a_worker_of_local_sgd_learns_from_a_rare_dataset_too(tmp_path) -> None:
    """Of a worker's two rows one step in four has one of pairs, whose term weighs a hundred times the other."""
    datasets = (MixedDataset(name="text", rows=0.875), MixedDataset(name="pairs", rows=0.125))
    terms = (
        MixtureTerm(objective=CausalLm(), dataset="text"),
        MixtureTerm(objective=CausalLm(), dataset="pairs", weight=100.0),
    )
    config = small_config(
        objective=Mixture(datasets=datasets, terms=terms),
        steps=40,
        exchange=LocalSgd(workers=4, inner_steps=5),
        optimizer=Sgd(learning_rate=1e-3),
    )
    rows = text_and_pairs({one.name: one.rows for one in datasets})
    figures = run_small(tmp_path, small_model(), config, rows=rows, micro_batch_rows=2)
    assert figures.counters.skipped == 0, "the gradient of its row is no spike"
