"""Each stage's tiny output, recorded with its code version: when the output moves, the version must.

A stage key holds the code version, so a changed body under an old version would let old artifacts pass for new ones.
To record again after a bump:  GENAI_RECORD_GOLDEN=1 pytest tests/golden
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genai_core.config.comparison import ComposingConfig, Continue
from genai_core.config.compute import ComputeConfig
from genai_core.config.data import AugmentationConfig, QuotePairs, SplitConfig, TextSource, TrainTokenizer
from genai_core.config.erasure import ErasureConfig, LabelledConcept
from genai_core.config.generation import SamplingConfig
from genai_core.config.lifecycle import EvaluationConfig, GuardConfig, SynthesisConfig
from genai_core.config.model import ScratchBase
from genai_core.config.stages import (
    AugmentStage,
    ComposeStage,
    EraseStage,
    EvaluateStage,
    MeasureCorrectionStage,
    MeasureGenerationStage,
    PretrainStage,
    SampleCorrectionsStage,
    SynthesizeStage,
    TuneStage,
    VerifyStage,
)
from genai_core.config.training import AdamW, TrainingConfig
from genai_core.data.resolve import resolve_source
from genai_core.launch.inline import InlineWorkers
from genai_core.stages.contract import StageContext, StageJob
from genai_core.stages.registry import STAGES
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

pytestmark = pytest.mark.golden

RECORD = Path(__file__).with_name("stages.json")
SAMPLED = {"compose", "synthesize", "sample-corrections", "measure-correction", "measure-generation"}
"""Stages whose figures hang on sampled tokens: only what sampling cannot move is recorded of them."""

UNSTEADY = ("/accuracy", "/non-linear/")
"""Parts of figures that hang on the last bits of an optimisation: a probe that knows nothing guesses by rounding."""

WORDS = [
    "river",
    "stone",
    "cloud",
    "house",
    "garden",
    "winter",
    "letter",
    "silver",
    "window",
    "morning",
    "paper",
    "bridge",
    "summer",
    "candle",
    "forest",
]
EVALUATION = EvaluationConfig(max_documents=8, max_prompts=6, max_new_tokens=6, bootstrap_draws=50)
SAMPLING = SamplingConfig(temperature=0.8, max_new_tokens=6)
COMPUTE = ComputeConfig(
    precision="float32", micro_batch_rows=4, threads=1, workers=1, generation_workers=1, shard_rows=8
)


def training(steps: int) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        global_batch_tokens=512,
        seq_len=128,
        checkpoint_every_steps=4,
        evaluate_every_steps=4,
        optimizer=AdamW(learning_rate=3e-3),
    )


def write_text(folder: Path) -> None:
    draw = random.Random(7)
    for number in range(24):
        sentences = [" ".join(draw.choices(WORDS, k=9)).capitalize() + "." for _ in range(12)]
        (folder / f"{number:02d}.txt").write_text(" ".join(sentences) + "\n")


def write_labelled(folder: Path) -> LabelledConcept:
    """Write texts of two halves of the words, each labelled with its half."""
    draw, path = random.Random(8), folder / "labelled.jsonl"
    halves = {"first": WORDS[:8], "second": WORDS[8:]}
    rows = [{"text": " ".join(draw.choices(halves[name], k=8)), "label": name} for name in [*halves] * 40]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LabelledConcept(path=str(path))


class House:
    """Runs stages one after another in a folder, without any server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, Any] = {}

    def run(self, stage: str, config: Any, title: str = "", **inputs: Path | ArtifactRef) -> Path:
        title = title or stage
        spec = STAGES[stage]
        key = title.encode().hex().ljust(64, "0")[:64]
        workspace = Workspace(FolderStore(self.folder / "store"), key, self.folder / "scratch")
        journal = Journal(workspace.path / "journal.jsonl")
        output = self.folder / title
        output.mkdir()
        refs = {
            role: given
            if isinstance(given, ArtifactRef)
            else ArtifactRef(kind="model", name=given.name, version="0", digest="0", uri=str(given), key=given.name)
            for role, given in inputs.items()
        }
        job = StageJob(
            stage=stage,
            title=title,
            key=key,
            attempt=1,
            kind=spec.kind,
            name=title,
            config=config.model_dump(mode="json"),
            inputs=refs,
            compute=COMPUTE,
            storage_uri=str(self.folder / "store"),
        )
        places = {role: Path(ref.uri) for role, ref in refs.items() if Path(ref.uri).exists()}
        context = StageContext(
            job=job,
            inputs=places,
            output=output,
            workspace=workspace,
            journal=journal,
            workers=InlineWorkers(workspace, journal, lambda: None),
            check=lambda: None,
        )
        result = spec.load_body()(spec.config.model_validate(job.config), context)
        journal.close()
        if title == stage:
            self.found[stage] = self.signature(stage, output, dict(result.metrics))
        return output

    def signature(self, stage: str, output: Path, metrics: dict[str, float]) -> dict[str, Any]:
        files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
        if stage in SAMPLED:
            figures: dict[str, Any] = {"names": sorted(metrics)}
        else:
            # three digits: another processor's float32 may differ in the seventh
            figures = {
                name: float(f"{value:.3g}")
                for name, value in sorted(metrics.items())
                if not (stage == "erase" and any(part in name for part in UNSTEADY))
            }
        return {"version": STAGES[stage].version, "files": files, "figures": figures}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("golden")
    text = folder / "text"
    text.mkdir()
    write_text(text)
    data = AugmentationConfig(
        source=TextSource(path=str(text)),
        pairs=QuotePairs(per_document=4, passage_words=30),
        tokenizer=TrainTokenizer(vocab_size=400),
        split=SplitConfig(heldout_fraction=0.25, sealed_fraction=0.25),
        seq_len=128,
    )
    house = House(folder)
    corpus = house.run("augment", AugmentStage(augmentation=data), source=resolve_source(data.source))
    base = ScratchBase(n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=256)
    pretrained = house.run("pretrain", PretrainStage(base=base, training=training(8)), corpus=corpus)
    tuned = house.run("tune", TuneStage(training=training(8)), model=pretrained, corpus=corpus)
    synthesis = SynthesisConfig(prompts=8, samples_per_prompt=1, sampling=SAMPLING)
    synthetic = house.run("synthesize", SynthesizeStage(synthesis=synthesis, generation=1), model=tuned, corpus=corpus)
    grown = house.run(
        "tune", TuneStage(training=training(2)), "grown", model=tuned, corpus=corpus, **{"extra-1": synthetic}
    )
    house.run(
        "measure-generation",
        MeasureGenerationStage(evaluation=EVALUATION, guard=GuardConfig(), probe_samples=6, generation=1),
        candidate=grown,
        parent=tuned,
        origin=tuned,
        control=tuned,
        corpus=corpus,
        synthetic=synthetic,
    )
    house.run(
        "sample-corrections",
        SampleCorrectionsStage(prompts=6, samples_per_prompt=2, invented_names=True, sampling=SAMPLING, seed=0),
        model=tuned,
        corpus=corpus,
    )
    house.run(
        "measure-correction",
        MeasureCorrectionStage(best_of=2, measure_prompts=6, sampling=SAMPLING, evaluation=EVALUATION, seed=0),
        before=tuned,
        after=grown,
        corpus=corpus,
    )
    house.run("evaluate", EvaluateStage(evaluation=EVALUATION, split="heldout"), model=tuned, corpus=corpus)
    labelled = write_labelled(folder)
    erasure = ErasureConfig(concept=labelled, max_documents=4, bootstrap_draws=50, probe_hidden=4)
    house.run(
        "erase", EraseStage(erasure=erasure), model=tuned, corpus=corpus, labelled=resolve_source(labelled.source())
    )
    composing = ComposingConfig(documents=6, tokens=48, budget_words=100, bootstrap_draws=50)
    house.run(
        "compose", ComposeStage(reads="left", way=Continue(), composing=composing), model=pretrained, corpus=corpus
    )
    house.run("verify", VerifyStage(max_logit_difference=1e-4), model=tuned)
    torch.set_num_threads(threads)
    if os.environ.get("GENAI_RECORD_GOLDEN"):
        RECORD.write_text(json.dumps(house.found, indent=1, sort_keys=True) + "\n")
    yield house.found


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_output_of_a_stage_moves_only_with_its_version(found: dict[str, Any], stage: str) -> None:
    recorded = json.loads(RECORD.read_text())[stage]
    now = found[stage]
    if now["version"] != recorded["version"]:
        pytest.fail(f"{stage} is version {now['version']}, recorded is {recorded['version']}: record it again")
    assert now["files"] == recorded["files"], f"{stage} writes other files: bump its version and record it again"
    if "names" in recorded["figures"]:
        assert now["figures"] == recorded["figures"]
        return
    assert now["figures"].keys() == recorded["figures"].keys()
    for name, figure in recorded["figures"].items():
        assert now["figures"][name] == pytest.approx(figure, rel=0.02, abs=0.011), (
            f"{stage}: {name} moved; bump its version"
        )
