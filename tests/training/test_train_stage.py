"""Both bodies on a small corpus: pre-train from scratch, tune with an adapter on real and extra pairs."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from worker_case import digests, make_corpus, texts

from genai_core.config.compute import ComputeConfig
from genai_core.config.model import LoraAdapter, ScratchBase
from genai_core.config.objectives import (
    BlockDiffusion,
    Contrastive,
    Distillation,
    MaskedDiffusion,
    MixedDataset,
    Mixture,
    MixtureTerm,
    writer_of,
)
from genai_core.config.stages import PretrainStage, TuneStage
from genai_core.config.training import AdamW, TrainingConfig
from genai_core.data.documents import Document, Pair, write_documents, write_pairs
from genai_core.data.packing import PackedRows
from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import ConfigError, ModelError
from genai_core.generation.encoding import Encoder
from genai_core.launch.inline import InlineWorkers
from genai_core.models.diffusion_folder import read_writer
from genai_core.models.resolve import resolve_base
from genai_core.stages.contract import StageContext, StageJob
from genai_core.stages.registry import STAGES
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.digest import stage_key
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal
from genai_core.training.plan import place_workers

BASE = ScratchBase(n_layers=2, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48, max_seq_len=64)
TRAINING = TrainingConfig(
    steps=12, seq_len=32, global_batch_tokens=256, checkpoint_every_steps=6, evaluate_every_steps=6,
    optimizer=AdamW(learning_rate=5e-3),
)  # fmt: skip


def pairs(start, count, origin="real"):
    return [
        Pair(
            f"{origin}-{n}",
            "answer",
            "g",
            f"d{n}",
            f"say {n}",
            " ".join(texts(count + start)[n].split()[:3]),
            {},
            origin,
        )
        for n in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    write_pairs(folder / "pairs" / "train.parquet", pairs(0, 20))
    write_pairs(folder / "pairs" / "heldout.parquet", pairs(20, 6))
    write_pairs(folder.parent / "extra" / "pairs" / "train.parquet", pairs(30, 20, "synthetic-g1"))
    return folder


def open_context(folder, stage, config, inputs, refs=None, **compute):
    store = FolderStore(folder / "store")
    workspace = Workspace(store, "ab" * 32, folder / "scratch")
    journal = Journal(workspace.path / "journal.jsonl")
    output = folder / "output"
    output.mkdir()
    job = StageJob(
        stage=stage, title=stage, key="ab" * 32, attempt=1, kind=ArtifactKind.MODEL, name="m", inputs=refs or {},
        config=config.model_dump(mode="json"), storage_uri=str(folder / "store"),
        compute=ComputeConfig(**{"workers": 1, "threads": 1, "precision": "float32", "micro_batch_rows": 4, **compute}),
    )  # fmt: skip
    workers = InlineWorkers(workspace, journal, lambda: None)
    return StageContext(job, inputs, output, workspace, journal, workers, lambda: None)


def run(folder, stage, config, inputs, refs=None, **compute):
    folder.mkdir()
    context = open_context(folder, stage, config, inputs, refs, **compute)
    return STAGES[stage].load_body()(config, context), context.output


@pytest.fixture(scope="module")
def base(corpus, tmp_path_factory):
    torch.set_num_threads(1)
    return run(
        tmp_path_factory.mktemp("base") / "a",
        "pretrain",
        PretrainStage(base=BASE, training=TRAINING),
        {"corpus": corpus},
    )


def test_pretraining_publishes_a_model_and_its_figures(base):
    result, output = base
    assert sorted(path.name for path in output.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    AutoModelForCausalLM.from_pretrained(output)
    assert {"train_loss", "eval_loss_nats", "eval_bits_per_byte", "steps", "tokens_seen"} <= set(result.metrics)
    assert all(isinstance(value, float) for value in result.metrics.values())
    assert {"tokens_per_second", "peak_memory_bytes", "plan"} <= set(result.told)
    json.dumps(result.told)


@pytest.mark.parametrize("tuning", [TRAINING.tuning, LoraAdapter(rank=4)], ids=["full", "lora"])
def test_tuning_learns_answers_and_gives_the_same_bytes_twice(corpus, base, tmp_path, tuning):
    config = TuneStage(training=TRAINING.model_copy(update={"tuning": tuning}), min_real_share=0.75)
    inputs = {"corpus": corpus, "model": base[1], "extra-1": corpus.parent / "extra"}
    result, output = run(tmp_path / "a", "tune", config, inputs)
    _, again = run(tmp_path / "b", "tune", config, inputs)
    assert digests(output) == digests(again)
    assert (output / "adapter" / "adapter_model.safetensors").exists() == isinstance(tuning, LoraAdapter)
    assert 0.75 <= result.metrics["real_share"] < 1.0
    assert result.metrics["real_examples"] == 20
    assert result.metrics["eval_tokens"] > 0
    assert result.told["rows"]["dropped"]["extra"]["over_share"] > 0


@pytest.mark.parametrize(
    "objective", [MaskedDiffusion(mask_token="!", answer_length=10), BlockDiffusion(mask_token="!", block_length=4)]
)
def test_a_diffusion_model_is_tuned_on_filled_answers_and_says_how_it_writes(corpus, base, tmp_path, objective):
    training = TRAINING.model_copy(update={"objective": objective})
    config = TuneStage(training=training, replay_share=0.3)
    result, output = run(tmp_path / "a", "tune", config, {"corpus": corpus, "model": base[1]})
    assert read_writer(output) == writer_of(objective, 32)
    assert read_writer(base[1]) is None
    causal, _ = run(tmp_path / "b", "tune", TuneStage(training=TRAINING), {"corpus": corpus, "model": base[1]})
    assert result.told["rows"]["trained_tokens"]["real"] > causal.told["rows"]["trained_tokens"]["real"]
    assert result.metrics["eval_bits_per_byte"] > 0, "a bound"


def test_repeated_passages_reach_pretraining_and_the_replay_of_a_tuning(corpus, base, tmp_path):
    pretrained, _ = run(
        tmp_path / "a", "pretrain", PretrainStage(base=BASE, training=TRAINING, repeat_share=0.25), {"corpus": corpus}
    )
    assert pretrained.metrics["3-gram_bits_per_byte"] == 2.5, "the yardstick that augmentation has measured"
    assert pretrained.metrics["repeated_rows"] == pytest.approx(0.25 * pretrained.metrics["train_rows"], abs=1)
    assert pretrained.metrics["train_loss"] != base[0].metrics["train_loss"]
    config = TuneStage(training=TRAINING, replay_share=0.5, repeat_share=0.25)
    tuned, _ = run(tmp_path / "b", "tune", config, {"corpus": corpus, "model": base[1]})
    assert tuned.metrics["replayed_rows"] > 0
    [mixed] = (tmp_path / "b").rglob("rows/train.arrow")
    halves = [row.input_ids[: row.seq_lengths[0]] for row in PackedRows.open(mixed)]
    assert any(len(ids) > 8 and ids[: len(ids) // 2].tolist() == ids[len(ids) // 2 :].tolist() for ids in halves)


def test_text_and_pairs_are_learned_in_one_run_at_their_shares(corpus, base, tmp_path):
    objective = Mixture(
        datasets=(MixedDataset(name="text", rows=0.75), MixedDataset(name="pairs", rows=0.25)),
        terms=(MixtureTerm(dataset="text"), MixtureTerm(dataset="pairs", weight=0.5)),
    )
    training = TRAINING.model_copy(update={"objective": objective})
    found = {
        "a": run(tmp_path / "a", "pretrain", PretrainStage(base=BASE, training=training), {"corpus": corpus}),
        "b": run(tmp_path / "b", "tune", TuneStage(training=training), {"corpus": corpus, "model": base[1]}),
    }
    for name, (result, _) in found.items():
        assert result.metrics["steps"] == 12
        [journal] = (tmp_path / name).rglob("journal.jsonl")
        lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        [last] = [line["m"] for line in lines if line.get("step") == 12 and "train/loss" in line["m"]]
        terms = last["loss/causal_lm_text"] + 0.5 * last["loss/causal_lm_pairs"]
        assert last["train/loss"] == pytest.approx(terms, abs=1e-6)
        assert last["loss/causal_lm_text"] > 0 and last["loss/causal_lm_pairs"] > 0


def test_a_published_model_teaches_a_smaller_one_and_its_digest_enters_the_key(corpus, base, tmp_path):
    teacher = ArtifactRef(kind=ArtifactKind.MODEL, name="t", version="1", digest="d1", uri="far away")
    objective = Distillation(teacher={"kind": "folder", "path": "where the recipe has it"}, label_weight=0.5)
    config = PretrainStage(
        base=BASE.model_copy(update={"n_layers": 1, "d_ff": 32}),
        training=TRAINING.model_copy(update={"objective": objective}),
    )
    _, output = run(
        tmp_path / "a", "pretrain", config, {"corpus": corpus, "teacher": base[1]}, refs={"teacher": teacher}
    )
    [journal] = (tmp_path / "a").rglob("journal.jsonl")
    rows = [json.loads(line).get("m", {}) for line in journal.read_text().splitlines()]
    curve = [row["loss/distillation"] for row in rows if "loss/distillation" in row]
    assert curve[-1] < curve[0]
    assert AutoModelForCausalLM.from_pretrained(output).config.num_hidden_layers == 1
    other = {"teacher": teacher.model_copy(update={"digest": "d2"})}
    assert stage_key("pretrain", 2, config, {"teacher": teacher}) != stage_key("pretrain", 2, config, other)


def test_a_teacher_of_other_tokens_ends_the_stage_before_a_worker_starts(corpus, base, tmp_path):
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(base[1]).save_pretrained(other)
    train_tokenizer(["other words altogether " * 9], 320, 64).save_pretrained(other)
    objective = Distillation(teacher={"kind": "folder", "path": str(other)})
    config = TuneStage(training=TRAINING.model_copy(update={"objective": objective}))
    refs = {"teacher": resolve_base(objective.teacher)}
    inputs = {"corpus": corpus, "model": base[1], "teacher": other}
    with pytest.raises(ModelError, match="The teacher's tokenizer is not that of the data"):
        run(tmp_path / "a", "tune", config, inputs, refs=refs)
    assert not list((tmp_path / "a").rglob("plan.json"))


def test_a_model_learns_to_embed_and_to_answer_in_one_run_and_tells_how_it_embeds(corpus, base, tmp_path):
    named = [Document(f"g.d{n}", "g", text[:30], f"{text[:30]}\n\n{text[30:]}") for n, text in enumerate(texts(40))]
    write_documents(corpus / "documents" / "train.parquet", named)
    how = Contrastive(negatives=1, temperature=0.05)
    objective = Mixture(
        datasets=(MixedDataset(name="retrieval", rows=0.5), MixedDataset(name="pairs", rows=0.5)),
        terms=(MixtureTerm(objective=how, dataset="retrieval"), MixtureTerm(dataset="pairs")),
    )
    training = TRAINING.model_copy(update={"objective": objective, "seq_len": 64, "global_batch_tokens": 512})
    result, model = run(tmp_path / "a", "tune", TuneStage(training=training), {"corpus": corpus, "model": base[1]})
    assert result.metrics["steps"] == 12
    [journal] = (tmp_path / "a").rglob("journal.jsonl")
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    curve = [line["m"] for line in lines if "train/loss" in line.get("m", {})]
    assert curve[-1]["count/contrastive_retrieval"] == 4
    assert curve[-1]["loss/contrastive_retrieval"] > 0 and curve[-1]["loss/causal_lm_pairs"] > 0
    assert curve[-1]["train/contrastive_accuracy_retrieval"] <= 1
    encoder = Encoder.open(model)
    assert encoder.queries([named[0].title]).shape == (1, 32)
    told = json.loads((model / "embedding.json").read_text())
    assert told.pop("row_tokens") == 64, "longer texts are cut there"
    assert Contrastive.model_validate(told) == how
    assert not (base[1] / "embedding.json").exists()


def test_more_workers_than_rows_are_refused_before_anything_starts(corpus, tmp_path):
    config = PretrainStage(base=BASE, training=TRAINING)
    with pytest.raises(ConfigError, match=r"compute\.workers=9 is more than the 8 rows of a step"):
        run(tmp_path / "a", "pretrain", config, {"corpus": corpus}, workers=9)


def test_workers_and_threads_come_from_the_config_then_the_plan_then_the_machine(tmp_path):
    assert place_workers(ComputeConfig(workers=3, threads=2), 8, tmp_path) == (3, 2)
    plan = {"precision": "float32", "threads": 5, "micro_batch_rows": 4, "world_size": 2}
    assert place_workers(ComputeConfig(), 8, tmp_path)[0] >= 1
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert place_workers(ComputeConfig(), 8, tmp_path) == (2, 5)
    (tmp_path / "plan.json").write_text("{")
    assert place_workers(ComputeConfig(workers=1, threads=1), 8, tmp_path) == (1, 1)


@pytest.mark.parametrize(("gpus", "shared_by", "processes"), [(8, 0, 8), (8, 4, 4), (3, 4, 2), (0, 4, 1)])
def test_processes_that_nobody_counted_share_the_workers_of_local_sgd_evenly(
    tmp_path, monkeypatch, gpus, shared_by, processes
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert place_workers(ComputeConfig(), 8, tmp_path, shared_by)[0] == processes
