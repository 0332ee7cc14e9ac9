"""LinkBERT through the real stage and engine: exact for every cut and after a stop, for encoders and for decoders; and its
world of two hops, in which only linked pairs say what is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small_run import MemoryLog, alone, largest_difference, weights
from test_train_stage import open_context
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
from two_hop_world import LANGUAGES, PEOPLE, SEQ_LEN, TOWNS, second_hops, world, world_tokenizer

from genai_core.augmentation.link_graph import segments_of
from genai_core.config.masking import Masking
from genai_core.config.model import LoraAdapter, ScratchBase
from genai_core.config.objectives import LinkedLm, Relation
from genai_core.config.stages import PretrainStage
from genai_core.config.training import AdamW, SpikeConfig, TrainingConfig
from genai_core.data.documents import write_documents
from genai_core.data.linked_rows import PairDrawer, segment_tokens, write_pairs_of_segments
from genai_core.data.packing import PackedRows
from genai_core.errors import InterruptedRunError
from genai_core.models.load import init_scratch
from genai_core.models.row_head import FILE, add_row_head, load_row_head
from genai_core.objectives.registry import build_objectives
from genai_core.training.checkpoint import CheckpointFolder
from genai_core.training.engine import Engine
from genai_core.training.worker import LocalKeeper

MASKING = Masking(rate=0.4, mask_share=1.0, random_share=0.0)
SIZES = {"n_layers": 2, "d_model": 64, "n_heads": 2, "n_kv_heads": 2, "d_ff": 128, "max_seq_len": SEQ_LEN}
BOTH: tuple[Relation, ...] = ("contiguous", "random")
ALL: tuple[Relation, ...] = ("contiguous", "random", "linked")


def prepare(
    folder: Path, architecture: str, objective: LinkedLm, *, double: bool = False, seed: int = 0
) -> tuple[Any, PackedRows]:
    """Return a model with its head of rows, and the rows of the world; the seed is that of all three."""
    documents, _ = world(seed)
    tokenizer = world_tokenizer()
    segments = segments_of(documents, tokenizer, segment_tokens(SEQ_LEN), objective)
    drawer = PairDrawer(segments, objective.relations)
    end, pad = tokenizer.sep_token_id, tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    shares = write_pairs_of_segments(
        drawer, folder / "rows.arrow", seq_len=SEQ_LEN, draws=objective.draws, seed=seed, end=end, pad=pad
    )
    assert (shares["linked_share"] > 0.1) == ("linked" in objective.relations)
    model = init_scratch(ScratchBase(architecture=architecture, seed=seed, **SIZES), tokenizer)
    if double:
        model = model.double()
    add_row_head(model, 3, seed=seed)
    return model, PackedRows.open(folder / "rows.arrow")


def train(folder: Path, model: Any, rows: PackedRows, objective: LinkedLm, steps: int, **more: Any) -> MemoryLog:
    """Run the engine; `more` are arguments of it."""
    every = more.pop("checkpoint_every_steps", steps)
    spikes, seed = more.pop("spikes", SpikeConfig()), more.pop("seed", 0)
    config = TrainingConfig(
        objective=objective,
        steps=steps,
        global_batch_tokens=32 * SEQ_LEN,
        seq_len=SEQ_LEN,
        optimizer=AdamW(learning_rate=3e-3, weight_decay=0.0),
        checkpoint_every_steps=every,
        evaluate_every_steps=steps,
        spikes=spikes,
        seed=seed,
    )
    log = MemoryLog()
    objectives = build_objectives(objective, world_tokenizer())
    given = {"micro_batch_rows": 32, **more}
    checkpoints = CheckpointFolder(LocalKeeper(folder), log, every)
    Engine(model, objectives, rows, config, group=alone(), checkpoints=checkpoints, log=log, **given).run()
    return log


@pytest.mark.parametrize(("architecture", "reads"), [("bert", "own"), ("llama", "previous")])
def test_micro_batches_and_a_stop_give_the_same_weights(tmp_path, architecture, reads) -> None:
    objective = LinkedLm(masking=MASKING, draws=2, reads=reads)
    models = []
    for name in ("whole", "cut", "stopped", "again", "fresh"):
        models.append(prepare(tmp_path / name, architecture, objective, double=True)[0])
    rows = PackedRows.open(tmp_path / "whole" / "rows.arrow")
    whole, cut, stopped, again, fresh = models
    first = train(tmp_path / "whole", whole, rows, objective, 12, precision="float64")
    train(tmp_path / "cut", cut, rows, objective, 12, precision="float64", micro_batch_rows=5)
    assert largest_difference(weights(whole), weights(cut)) < 1e-7
    asked = iter(range(100))
    more = {"checkpoint_every_steps": 3, "precision": "float64"}
    with pytest.raises(InterruptedRunError):
        train(tmp_path / "stopped", stopped, rows, objective, 12, should_stop=lambda: next(asked) == 7, **more)
    train(tmp_path / "stopped", again, rows, objective, 12, **more)
    assert largest_difference(weights(whole), weights(again)) == 0.0
    assert largest_difference(weights(whole), weights(fresh)) > 1e-3
    moved = largest_difference(weights(whole.row_head), weights(fresh.row_head))
    assert moved > 1e-3, "the head of rows is trained"
    assert first.curve("loss/relation")[0] == pytest.approx(1.0986, abs=0.05), "ln 3 before anything is learned"
    assert first.curve("count/relation")[0] == 32


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_the_stage_makes_the_pairs_and_publishes_the_head_beside_the_model(tmp_path, architecture) -> None:
    documents, _ = world()
    corpus = tmp_path / "corpus"
    world_tokenizer().save_pretrained(corpus / "tokenizer")
    write_documents(corpus / "documents" / "train.parquet", documents[:12] + documents[PEOPLE:])
    write_documents(corpus / "documents" / "heldout.parquet", documents[12:PEOPLE])
    (corpus / "stats.json").write_text(json.dumps({"ngram_bits_per_byte": {}}))
    training = TrainingConfig(
        objective=LinkedLm(masking=MASKING), steps=4, seq_len=SEQ_LEN, global_batch_tokens=8 * SEQ_LEN
    )
    base = ScratchBase(architecture=architecture, **SIZES)
    results = []
    for name in ("a", "b"):
        config = PretrainStage(base=base, training=training)
        results.append(run_pretrain(tmp_path / name, config, corpus))
    (context, result), (other, _) = results
    figures = result.metrics
    assert figures["contiguous_share"] + figures["random_share"] + figures["linked_share"] == pytest.approx(1)
    assert figures["linked_share"] > 0.1
    assert figures["train_rows"] == 4 * (12 + TOWNS), "every document is one piece"
    assert figures["eval_loss_nats"] > 0
    assert "eval_bits_per_byte" not in figures
    head = load_row_head(context.output)
    assert head.classifier.weight.shape == (3, 64)
    kind = AutoModelForMaskedLM if architecture == "bert" else AutoModelForCausalLM
    _, told = kind.from_pretrained(context.output, output_loading_info=True)
    assert not told["unexpected_keys"], "plain transformers finds no weight that it does not know"
    assert not told["missing_keys"]
    for file in ("model.safetensors", FILE):
        assert (context.output / file).read_bytes() == (other.output / file).read_bytes()


def test_the_head_is_trained_beside_an_adapter(tmp_path) -> None:
    documents, _ = world()
    corpus = tmp_path / "corpus"
    world_tokenizer().save_pretrained(corpus / "tokenizer")
    for side in ("train", "heldout"):
        write_documents(corpus / "documents" / f"{side}.parquet", documents)
    (corpus / "stats.json").write_text(json.dumps({"ngram_bits_per_byte": {}}))
    training = TrainingConfig(
        objective=LinkedLm(masking=MASKING),
        steps=4,
        seq_len=SEQ_LEN,
        global_batch_tokens=8 * SEQ_LEN,
        tuning=LoraAdapter(rank=2),
    )
    context, _ = run_pretrain(
        tmp_path / "a", PretrainStage(base=ScratchBase(architecture="bert", **SIZES), training=training), corpus
    )
    names = set(load_file(context.output / "model.safetensors"))
    assert not any("row_head" in name or "lora" in name for name in names)
    assert load_row_head(context.output).classifier.weight.shape == (3, 64)


def run_pretrain(folder: Path, config: PretrainStage, corpus: Path) -> tuple[Any, Any]:
    """Run the stage's body."""
    from genai_core.stages.train import pretrain

    folder.mkdir(parents=True)
    context = open_context(folder, "pretrain", config, {"corpus": corpus})
    return context, pretrain(config, context)


def learn_hops(folder: Path, architecture: str, objective: LinkedLm, steps: int, **more: Any) -> float:
    """Return the share of second hops that is found after training; `more` are arguments of `train`."""
    seed = more.get("seed", 0)
    model, rows = prepare(folder, architecture, objective, seed=seed)
    train(folder, model, rows, objective, steps, **more)
    return second_hops(model, world_tokenizer(), world(seed)[1])


@pytest.mark.worlds
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_second_hop_is_learned_from_linked_pairs_alone(tmp_path, seed) -> None:
    """objectives.md 5.5, check 8: above 0.9 with links; with the same steps on the others about 1 in LANGUAGES.

    A language is learned where both names of the town are hidden and the person is not: with 0.4 hidden that is one linked row in
    26, so more is hidden here. Every piece is the first of 64 pairs: among 8, another town may stand behind a person as
    often as the right one. Where the hop is found the gradient rises to many times its median, which is no spike.
    """
    masking = Masking(rate=0.6, mask_share=1.0, random_share=0.0)
    found = {}
    for name, relations in (("linked", ALL), ("unlinked", BOTH)):
        objective = LinkedLm(masking=masking, relations=relations, draws=64)
        found[name] = learn_hops(tmp_path / name, "llama", objective, 2000, seed=seed, spikes=SpikeConfig(factor=100.0))
    print(f"seed {seed}: {found}", flush=True)
    assert found["linked"] > 0.9, found
    assert found["unlinked"] < 1 / LANGUAGES + 0.2, found
