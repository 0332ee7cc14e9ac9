"""One stage's body without flow, store, claim or tracking: in a notebook, a benchmark, on a bare GPU machine.

What it makes lies in a folder that is called after stage, config and inputs: asked for again, it is found there. Training
resumes.

    run_alone("pretrain", PretrainStage(...), {"corpus": folder}, Path("work"))
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_core.config.base import Config, canonical
from genai_core.config.compute import ComputeConfig
from genai_core.config.data import AugmentationConfig
from genai_core.config.stages import AugmentStage
from genai_core.data.resolve import resolve_source
from genai_core.launch.inline import InlineWorkers
from genai_core.stages.contract import StageContext, StageJob
from genai_core.stages.registry import STAGES
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.digest import digest_json
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

DONE = "done.json"


@dataclass(frozen=True, slots=True)
class Alone:
    """What a stage has made."""

    output: Path
    metrics: Mapping[str, float]


def run_alone(
    stage: str,
    config: Config,
    inputs: Mapping[str, Path],
    root: Path,
    *,
    refs: Mapping[str, ArtifactRef] | None = None,
    compute: ComputeConfig | None = None,
) -> Alone:
    """Run a stage's body here, with one worker; return its output, at once if it has been made before.

    Args:
        stage: its name in the registry.
        config: its config.
        inputs: folders of its inputs, by role.
        root: folder of all that is made alone; the stage has one of its own in it.
        refs: inputs by content, for bodies that ask for it.
        compute: threads, precision, micro-batch; one worker.
    """
    compute = (compute or ComputeConfig()).model_copy(update={"workers": 1})
    places = {role: str(path.resolve()) for role, path in inputs.items()}
    key = digest_json(
        {
            "stage": [stage, STAGES[stage].version],
            "config": canonical(config),
            "inputs": {**places, **{role: ref.digest for role, ref in (refs or {}).items()}},
        }
    )
    folder = root / f"{stage}-{key[:12]}"
    done, output = folder / DONE, folder / "output"
    if done.exists():
        return Alone(output, json.loads(done.read_text(encoding="utf-8"))["metrics"])
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    workspace = Workspace(FolderStore(folder / "store"), key, folder / "scratch")
    journal = Journal(workspace.path / "journal.jsonl")
    job = StageJob(
        stage=stage,
        title=stage,
        key=key,
        attempt=1,
        kind=STAGES[stage].kind,
        name=stage,
        config=config.model_dump(mode="json"),
        inputs=dict(refs or {}),
        compute=compute,
        storage_uri="",
    )
    workers = InlineWorkers(workspace, journal, _go_on)
    context = StageContext(job, inputs, output, workspace, journal, workers, _go_on)
    try:
        result = STAGES[stage].load_body()(config, context)
    finally:
        journal.close()
    draft = done.with_suffix(".part")
    draft.write_text(json.dumps({"stage": stage, "metrics": dict(result.metrics)}), encoding="utf-8")
    draft.rename(done)
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    return Alone(output, dict(result.metrics))


def prepare_alone(augmentation: AugmentationConfig, root: Path, compute: ComputeConfig | None = None) -> Path:
    """Return the folder of a source's corpus."""
    source = resolve_source(augmentation.source, augmentation.bad_row_share)
    inputs: dict[str, Any] = {"source": Path(source.uri)} if Path(source.uri).exists() else {}
    config = AugmentStage(augmentation=augmentation)
    return run_alone("augment", config, inputs, root, refs={"source": source}, compute=compute).output


def _go_on() -> None:
    """Nobody stops a stage that runs alone but the one who started it."""
