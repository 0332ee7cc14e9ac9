"""The two stage bodies on a tiny model that has learned a few of the answers: exact, resumable, and blind to gold."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from genai_core.config.base import Config
from genai_core.config.compute import ComputeConfig
from genai_core.config.generation import SamplingConfig
from genai_core.config.lifecycle import EvaluationConfig
from genai_core.config.model import ScratchBase
from genai_core.config.stages import MeasureCorrectionStage, SampleCorrectionsStage
from genai_core.data.documents import Pair, read_pairs, write_pairs
from genai_core.data.templates import render_example
from genai_core.data.tokenizer import train_tokenizer
from genai_core.launch.inline import InlineWorkers
from genai_core.models.load import init_scratch, save_model
from genai_core.stages.contract import StageContext, StageJob
from genai_core.stages.correct import _completer, measure_correction, sample_corrections
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

WORDS = ("red", "blue", "old", "new", "tall", "small", "dogs", "cats", "birds", "run", "sleep", "sing", "here", "there")
SAMPLING = SamplingConfig(temperature=0.8, max_new_tokens=16)
SAMPLE = SampleCorrectionsStage(prompts=12, samples_per_prompt=4, invented_names=True, sampling=SAMPLING, seed=3)
MEASURE = MeasureCorrectionStage(
    best_of=4,
    measure_prompts=12,
    sampling=SAMPLING,
    evaluation=EvaluationConfig(bootstrap_draws=200),
    seed=3,
)


def quote(index: int, *, other: bool = False) -> Pair:
    """Return a pair of a passage of two sentences; `other` asks for the other one."""
    rng = random.Random(index)
    first, second = (f"{' '.join(rng.sample(WORDS, 6)).capitalize()}." for _ in range(2))
    asked = rng.choice([first, second])
    asked = asked if not other else first if asked == second else second
    prompt = f"{first} {second}\n\nWrite the sentence that begins with: {' '.join(asked.split()[:3])}"
    return Pair(f"quote:{index}", "quote", f"g{index}", f"d{index}", prompt, asked, {"kind": "quote", "gold": asked})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, Path]:
    """A corpus, an untrained model, and one that was trained on two thirds of its questions until it knows them by heart."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("world")
    train, heldout = [quote(i) for i in range(18)], [quote(i) for i in range(100, 112)]
    name = Pair("name:0", "name", "g", "d", "Which object sorts?", "sorted", {"kind": "python_name", "gold": "sorted"})
    write_pairs(root / "corpus" / "pairs" / "train.parquet", [*train, name])
    write_pairs(root / "corpus" / "pairs" / "heldout.parquet", [*heldout, name])
    others = [quote(i, other=True) for i in range(18)]
    known = [pair for index, pair in enumerate([*train, *heldout, *others]) if index % 3]
    tokenizer = train_tokenizer([pair.prompt for pair in train], 320, 128)
    base = ScratchBase(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=128, max_seq_len=160)
    model = init_scratch(base, tokenizer)
    save_model(model, tokenizer, root / "before")
    examples = [render_example(tokenizer, pair.prompt, pair.completion) for pair in known]
    width = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in examples])
    labels = torch.tensor(
        [
            [token if keep else -100 for token, keep in zip(ids, mask, strict=True)] + [-100] * (width - len(ids))
            for ids, mask in examples
        ]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
    save_model(model.eval(), tokenizer, root / "after")
    return {"corpus": root / "corpus", "before": root / "before", "after": root / "after"}


def context_of(root: Path, inputs: dict[str, Path], config: Config, stage: str, kind: ArtifactKind) -> StageContext:
    output = root / "output"
    output.mkdir(parents=True)
    workspace = Workspace(FolderStore(root / "store"), "key", root / "scratch")
    refs = {
        role: ArtifactRef(kind=ArtifactKind.MODEL, name=role, version="1", digest="0" * 64, uri=path.as_uri())
        for role, path in inputs.items()
    }
    job = StageJob(
        stage=stage,
        title=stage,
        key="key",
        attempt=1,
        kind=kind,
        name=stage,
        config=config.model_dump(mode="json"),
        inputs=refs,
        compute=ComputeConfig(threads=1, workers=1, shard_rows=7),
        storage_uri=root.as_uri(),
    )
    journal = Journal(root / "journal.jsonl")
    workers = InlineWorkers(workspace, journal, lambda: None)
    return StageContext(job, inputs, output, workspace, journal, workers, lambda: None)


def sample(root: Path, world: dict[str, Path], model: str = "after", config: SampleCorrectionsStage = SAMPLE):
    inputs = {"model": world[model], "corpus": world["corpus"]}
    context = context_of(root, inputs, config, "sample-corrections", ArtifactKind.DATASET)
    return sample_corrections(config, context), context


def measure(root: Path, world: dict[str, Path]):
    context = context_of(root, world, MEASURE, "measure-correction", ArtifactKind.REPORT)
    return measure_correction(MEASURE, context), context


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_sampling_publishes_verified_answers_of_the_chosen_prompts(world, tmp_path):
    result, context = sample(tmp_path, world)
    rows = read_pairs(context.output / "pairs" / "train.parquet")
    real = read_pairs(world["corpus"] / "pairs" / "train.parquet")
    sources = {pair.pair_id: pair for pair in real}
    assert 3 <= len(rows) == result.metrics["accepted"] <= 12
    for row in rows:
        source = sources[row.pair_id.partition("/")[0]]
        assert (row.doc_id, row.origin) == (source.doc_id, "corrected")
        assert row.prompt not in {pair.prompt for pair in real}, "what it was trained on it knows"
        assert row.completion == row.check["gold"]  # a quote that begins as asked is the asked one
    assert (result.metrics["prompts"], result.metrics["samples"]) == (12, 48)
    assert result.metrics["right_of_accepted"] == 1 > result.metrics["right_of_random"]
    assert json.loads((context.output / "stats.json").read_text()) == result.metrics
    shown = json.loads((context.output / "samples.json").read_text())
    assert len(shown) == 12 and {"prompt", "before", "after"} < set(shown[0])


def test_a_model_that_knows_nothing_publishes_an_empty_dataset(world, tmp_path):
    result, context = sample(tmp_path, world, model="before")
    assert result.metrics["accepted"] == 0
    assert read_pairs(context.output / "pairs" / "train.parquet") == []


def test_a_corpus_without_open_book_tasks_publishes_an_empty_dataset(world, tmp_path):
    write_pairs(
        tmp_path / "corpus" / "pairs" / "train.parquet",
        [Pair("a", "answer", "g", "d", "Why?", "Because.", {"kind": "match", "gold": "Because."})],
    )
    result, _ = sample(tmp_path / "run", {**world, "corpus": tmp_path / "corpus"})
    assert (result.metrics["prompts"], result.metrics["accepted"]) == (0, 0)


def test_the_seed_chooses_prompts_and_noise(world, tmp_path):
    first, _ = sample(tmp_path / "a", world)
    other, _ = sample(tmp_path / "b", world, config=SAMPLE.model_copy(update={"seed": 4}))
    assert first.metrics != other.metrics


@pytest.mark.parametrize("body", [sample, measure])
def test_twice_the_same_bytes_and_only_a_lost_shard_is_made_again(world, tmp_path, body):
    first, context = body(tmp_path / "first", world)
    second, again = body(tmp_path / "second", world)
    assert contents(context.output) == contents(again.output) and first == second
    assert len(contents(context.output)) == 3
    shards = sorted((context.workspace.path / "shards").rglob("*.jsonl"))
    assert len(shards) > 5
    made = {shard: shard.stat().st_mtime_ns for shard in shards}
    published = contents(context.output)
    lost = shards[2]
    lost.unlink()
    for path in sorted(context.output.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    context.output.rmdir()
    _, resumed = body(tmp_path / "first", world)
    assert contents(resumed.output) == published
    assert [shard for shard in shards if shard.stat().st_mtime_ns != made[shard]] == [lost]


def test_the_report_shows_what_each_moment_brings(world, tmp_path):
    result, context = measure(tmp_path, world)
    report = json.loads((context.output / "report.json").read_text())
    arms, comparisons = report["arms"], report["comparisons"]
    assert report["prompts"] == 12  # the closed-book pair is not among them
    assert arms["before"]["right"] == 0 < arms["after"]["right"]
    assert arms["after"]["generated_tokens"] < arms["best"]["generated_tokens"]
    assert report["pass_at_n"] >= arms["best"]["right"] >= arms["sampled"]["right"]
    learned = comparisons["training_time"]
    assert learned["is_gain"] and learned["right"]["low"] > 0
    assert learned["transitions"]["ic"] == round(12 * arms["after"]["right"])
    cases = [json.loads(line) for line in (context.output / "cases.jsonl").read_text().splitlines()]
    assert len({case["case_id"] for case in cases}) == 12
    for name, arm in arms.items():
        assert sum(case[f"{name}_right"] for case in cases) == pytest.approx(12 * arm["right"])
    assert result.metrics["correction/after/right"] == arms["after"]["right"]
    assert result.metrics["correction/training_time/low"] == learned["right"]["low"]


def test_no_answer_depends_on_gold(world, tmp_path):
    """With every right answer replaced, the answers stay; only the verdicts at the end change."""
    blind = tmp_path / "corpus"
    for split in ("train", "heldout"):
        pairs = read_pairs(world["corpus"] / "pairs" / f"{split}.parquet")
        changed = [
            Pair(p.pair_id, p.task, p.group, p.doc_id, p.prompt, "No.", {**p.check, "gold": "No."}) for p in pairs
        ]
        write_pairs(blind / "pairs" / f"{split}.parquet", changed)
    _, context = measure(tmp_path / "a", world)
    changed_result, changed_context = measure(tmp_path / "b", {**world, "corpus": blind})
    spoken = [
        [json.loads(line)["answers"] for line in (c.output / "answers.jsonl").read_text().splitlines()]
        for c in (context, changed_context)
    ]
    assert spoken[0] == spoken[1]
    assert changed_result.metrics["correction/best/right"] == 0
    _, sampled = sample(tmp_path / "c", world)
    _, sampled_blind = sample(tmp_path / "d", {**world, "corpus": blind})
    rows, blind_rows = (read_pairs(c.output / "pairs" / "train.parquet") for c in (sampled, sampled_blind))
    assert [row.completion for row in rows] == [row.completion for row in blind_rows]


def test_a_prompt_longer_than_the_model_is_left_out_and_counted(world, tmp_path):
    corpus = tmp_path / "corpus"
    for split in ("train", "heldout"):
        pairs = read_pairs(world["corpus"] / "pairs" / f"{split}.parquet")
        pairs[0] = Pair("quote:long", "quote", "g", "d", "red " * 200, "Red.", {"kind": "quote", "gold": "Red."})
        write_pairs(corpus / "pairs" / f"{split}.parquet", pairs)
    result, _ = sample(tmp_path / "a", {**world, "corpus": corpus}, config=SAMPLE.model_copy(update={"prompts": 18}))
    assert (result.metrics["prompts"], result.metrics["too_long"]) == (17, 1)
    _, context = measure(tmp_path / "b", {**world, "corpus": corpus})
    report = json.loads((context.output / "report.json").read_text())
    assert (report["prompts"], report["too_long"]) == (11, 1)


def test_every_round_has_shards_of_its_own():
    """Shards are found again by name: a second round under the same name would get the first one's answers."""

    class Asked:
        def complete(self, requests, sampling, part):
            return [part]

    complete = _completer(Asked(), SAMPLING, "revision")
    assert [complete([]), complete([])] == [["revision-0"], ["revision-1"]]
