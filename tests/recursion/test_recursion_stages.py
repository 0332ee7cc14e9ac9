"""The bodies of synthesis and of a generation's measurement on a tiny model: exact, resumable, and blind to gold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_world import contents, make_context, without_gold

from genai_core.config.generation import SamplingConfig
from genai_core.config.lifecycle import EvaluationConfig, GuardConfig, SynthesisConfig
from genai_core.config.stages import MeasureGenerationStage, SynthesizeStage
from genai_core.data.documents import Pair, read_pairs, write_pairs
from genai_core.feedback.verify import open_verifier
from genai_core.stages.contract import StageContext, StageResult
from genai_core.stages.generation import measure_generation
from genai_core.stages.synthesize import synthesize

SYNTHESIS = SynthesisConfig(
    prompts=36, samples_per_prompt=2, sampling=SamplingConfig(temperature=1.0, max_new_tokens=32), min_accepted=2
)
MEASURE = MeasureGenerationStage(
    evaluation=EvaluationConfig(max_documents=8, max_prompts=16, max_new_tokens=32, bootstrap_draws=200),
    guard=GuardConfig(),
    probe_samples=16,
    generation=1,
    min_accepted=2,
)


def write(root: Path, inputs: dict[str, Path], generation: int = 1) -> tuple[StageResult, StageContext]:
    config = SynthesizeStage(synthesis=SYNTHESIS, generation=generation)
    context = make_context(root, "synthesize", config, inputs)
    return synthesize(config, context), context


def measure(
    root: Path,
    world: Path,
    synthetic: Path,
    config: MeasureGenerationStage = MEASURE,
    measured: Path | None = None,
    **roles: str,
) -> tuple[StageResult, StageContext]:
    inputs = {role: world / roles.get(role, "m150") for role in ("candidate", "parent", "origin", "control")}
    inputs |= {"corpus": world / "corpus", "synthetic": synthetic} | ({"measured": measured} if measured else {})
    context = make_context(root, "measure-generation", config, inputs)
    return measure_generation(config, context), context


def shards_of(context: StageContext) -> set[str]:
    """Return the roles that were asked anything."""
    return {path.name.partition("-")[0] for path in (context.workspace.path / "shards").glob("*")}


@pytest.fixture(scope="module")
def written(grown_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, StageContext]:
    inputs = {"model": grown_world / "m150", "corpus": grown_world / "corpus"}
    return write(tmp_path_factory.mktemp("written"), inputs)


def accepted(context: StageContext) -> list[Pair]:
    return read_pairs(context.output / "pairs" / "train.parquet")


def test_synthesis_publishes_pairs_that_verify_again(grown_world: Path, written) -> None:
    result, context = written
    pairs = accepted(context)
    stats = json.loads((context.output / "stats.json").read_text())
    assert len(pairs) == stats["accepted"] == result.metrics["accepted"] >= 3
    assert stats["raw"] == 72 == stats["accepted"] + sum(stats["rejected"].values())
    verifier = open_verifier(grown_world / "corpus")
    real = read_pairs(grown_world / "corpus" / "pairs" / "train.parquet")
    for pair in pairs:
        assert pair.origin == "synthetic-g1"
        assert verifier.judge(pair, pair.completion, use_gold=False).score == 1.0
        assert verifier.judge(pair, pair.completion, use_gold=True).score == 1.0
        assert (pair.doc_id, pair.completion) not in {(one.doc_id, one.completion) for one in real}
        assert pair.group in {one.group for one in real}, "only about documents of the training side"


def test_synthesis_is_the_same_bytes_again_and_does_not_read_gold(grown_world: Path, written, tmp_path: Path) -> None:
    inputs = {"model": grown_world / "m150", "corpus": grown_world / "corpus"}
    _, again = write(tmp_path / "again", inputs)
    assert contents(again.output) == contents(written[1].output)
    corpus = tmp_path / "corpus"
    shutil.copytree(grown_world / "corpus", corpus)
    path = corpus / "pairs" / "train.parquet"
    write_pairs(path, without_gold(read_pairs(path)))
    _, blind = write(tmp_path / "blind", {**inputs, "corpus": corpus})
    assert accepted(blind) == accepted(written[1])


def test_a_finished_shard_is_never_made_again(grown_world: Path, written, tmp_path: Path) -> None:
    """An attempt that died after three of its shards: the next one makes only the others, and the same artifact."""
    inputs = {"model": grown_world / "m150", "corpus": grown_world / "corpus"}
    config = SynthesizeStage(synthesis=SYNTHESIS, generation=1)
    context = make_context(tmp_path, "synthesize", config, inputs)
    done = written[1].workspace.path / "shards" / "model-samples"
    kept = context.workspace.path / "shards" / "model-samples"
    kept.mkdir(parents=True)
    for name in ("00000.jsonl", "00001.jsonl", "00003.jsonl"):
        shutil.copy(done / name, kept / name)
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    synthesize(config, context)
    assert contents(context.output) == contents(written[1].output)
    assert {name: (kept / name).stat().st_mtime_ns for name in before} == before


def test_the_next_generation_brings_nothing_twice(grown_world: Path, written, tmp_path: Path) -> None:
    """Generation 2 from the same parent samples other answers, and none that generation 1 has."""
    inputs = {"model": grown_world / "m150", "corpus": grown_world / "corpus", "extra-1": written[1].output}
    _, second = write(tmp_path, inputs, generation=2)
    first = {(pair.doc_id, pair.completion) for pair in accepted(written[1])}
    assert accepted(second)
    assert not first & {(pair.doc_id, pair.completion) for pair in accepted(second)}
    asked = [json.loads(line) for line in _shard(written[1])], [json.loads(line) for line in _shard(second)]
    assert [row["text"] for row in asked[0]] != [row["text"] for row in asked[1]]


def test_what_an_earlier_generation_has_is_not_taken_again(grown_world: Path, written, tmp_path: Path) -> None:
    """The same samples once more, now beside the data that they made: every one of them is known."""
    inputs = {"model": grown_world / "m150", "corpus": grown_world / "corpus", "extra-1": written[1].output}
    result, context = write(tmp_path, inputs)
    assert accepted(context) == []
    assert result.metrics["rejected/in_earlier_generation"] >= written[0].metrics["accepted"]


def _shard(context: StageContext) -> list[str]:
    return (context.workspace.path / "shards" / "model-samples" / "00000.jsonl").read_text().splitlines()


def test_a_generation_like_the_control_arm_passes(grown_world: Path, written, tmp_path: Path) -> None:
    roles = {"candidate": "m175", "control": "m175"}
    result, context = measure(tmp_path / "one", grown_world, written[1].output, **roles)
    report = json.loads((context.output / "report.json").read_text())
    assert report["verdict"]["decision"] == "pass", report["verdict"]
    assert len(report["verdict"]["reasons"]) == 8
    assert result.metrics["collapse/passed"] == 1.0
    assert report["changes"]["loss_increase"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 8}
    assert report["figures"]["candidate"] == report["figures"]["control"] != report["figures"]["origin"]
    _, again = measure(tmp_path / "two", grown_world, written[1].output, **roles)
    assert contents(again.output) == contents(context.output)
    assert sorted(contents(context.output)) == [
        "cases.jsonl",
        "metrics.png",
        "probes.jsonl",
        "report.json",
        "samples.json",
    ]


def test_models_that_are_the_same_are_measured_once(grown_world: Path, written, tmp_path: Path) -> None:
    _, context = measure(tmp_path, grown_world, written[1].output, candidate="m175", control="m175")
    assert shards_of(context) == {"origin", "control"}, "parent is origin, the candidate is the control arm"
    cases = [json.loads(line) for line in (context.output / "cases.jsonl").read_text().splitlines()]
    assert {case["model"] for case in cases} == {"origin", "control"}


def test_what_the_generation_before_measured_is_not_measured_again(grown_world: Path, written, tmp_path: Path) -> None:
    """The next generation asks its candidate alone, and says the same as if it had asked all."""
    synthetic = written[1].output
    _, first = measure(tmp_path / "first", grown_world, synthetic, candidate="m175", control="m175")
    roles = {"candidate": "broken", "parent": "m175", "control": "m175"}
    _, anew = measure(tmp_path / "anew", grown_world, synthetic, **roles)
    _, after = measure(tmp_path / "after", grown_world, synthetic, measured=first.output, **roles)
    assert shards_of(anew) == {"origin", "parent", "candidate"}
    assert shards_of(after) == {"candidate"}
    assert contents(after.output) == contents(anew.output)


def test_what_was_asked_otherwise_is_measured_again(grown_world: Path, written, tmp_path: Path) -> None:
    synthetic = written[1].output
    _, first = measure(tmp_path / "first", grown_world, synthetic, candidate="m175", control="m175")
    fewer = MEASURE.model_copy(update={"probe_samples": 12})
    _, after = measure(
        tmp_path / "after", grown_world, synthetic, fewer, first.output, candidate="m175", control="m175"
    )
    assert shards_of(after) == {"origin", "control"}


def test_a_broken_generation_is_not_passed(grown_world: Path, written, tmp_path: Path) -> None:
    _, context = measure(tmp_path, grown_world, written[1].output, candidate="broken", control="m175")
    report = json.loads((context.output / "report.json").read_text())
    assert report["verdict"]["decision"] in ("refuse", "stop")
    assert "right answers" in report["verdict"]["failed"]
    assert report["verdict"]["reasons"][0].startswith("right answers: 0.")
    assert report["figures"]["candidate"]["open_book/right"] < 0.5 * report["figures"]["parent"]["open_book/right"]


def test_without_accepted_pairs_nothing_is_measured(grown_world: Path, tmp_path: Path) -> None:
    synthetic = tmp_path / "synthetic"
    synthetic.mkdir()
    (synthetic / "stats.json").write_text(json.dumps({"accepted": 1, "duplicate_share": 0.0}))
    _, context = measure(tmp_path / "run", grown_world, synthetic)
    report = json.loads((context.output / "report.json").read_text())
    assert report["verdict"]["decision"] == "refuse"
    assert report["verdict"]["reasons"] == ["accepted pairs: 1, fewer than the 2 wanted"]
    assert not (context.workspace.path / "shards").exists()
