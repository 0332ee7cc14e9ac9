"""The whole mission at its smallest, through real Prefect, Ray and MLflow: computed once, then reused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

STAGES = (
    *("augment", "pretrain", "finetune"),
    *("synthesize-g1", "train-control-1", "train-g1", "measure-g1"),
    *("synthesize-g2", "train-control-2", "train-g2", "measure-g2"),
    *("sample-corrections", "train-corrected"),
    *("evaluate-base", "evaluate-candidate", "verify", "seal-base", "seal-candidate", "promote"),
)


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in report["stages"]}


def test_the_run_has_a_page_that_needs_nothing_else(mission: Any) -> None:
    home, _, report, _ = mission
    done = home.genai("report", "--out", "page.html")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (home.folder / "page.html").read_text()
    assert all(f"<td>{stage['name']}" in page for stage in report["stages"])
    assert page.count("<svg") >= 4, "three charts and the lineage; tables of transitions where something was corrected"
    assert all(f"{name}@" in page for name in ("minute-corpus", "minute-base", "minute-finetune"))
    assert "5-gram" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "a browser fetches nothing"


def test_all_stages_run_and_leave_a_registered_champion(mission: Any) -> None:
    _, code, report, out = mission
    assert code == 0, out
    assert report["recipe"] == "minute"
    assert report["status"] == "completed"
    assert set(by_name(report)) <= {*STAGES, "measure-correction"}
    assert {"augment", "pretrain", "finetune", "sample-corrections", "verify", "promote"} <= set(by_name(report))
    assert all(stage["status"] in {"computed", "skipped"} for stage in report["stages"]), out
    assert report["model"]["alias"] == "champion"
    assert report["model"]["gate"]["passed"]
    assert report["model"]["gate"]["reasons"]
    for stage in report["stages"]:
        if stage["status"] == "computed":
            assert set(stage["artifact"]) == {"kind", "name", "version", "digest", "uri"}


def test_mlflow_has_a_parent_with_a_child_for_each_stage_curves_and_inputs(mission: Any) -> None:
    home, _, report, _ = mission
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.folder / 'home' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("genai")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = {run.data.tags["mlflow.runName"]: run for run in runs if run is not parents[0]}
    computed = [
        stage["name"] for stage in report["stages"] if stage["status"] == "computed" and stage["name"] != "promote"
    ]
    assert sorted(children) == sorted(computed)
    assert all(run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id for run in children.values())
    assert all(run.info.status == "FINISHED" for run in runs)
    curve = client.get_metric_history(children["pretrain"].info.run_id, "train/loss")
    assert sorted(point.step for point in curve) == list(range(1, 13))
    inputs = client.get_run(children["finetune"].info.run_id).inputs.dataset_inputs
    assert {"minute-corpus", "minute-base"} <= {entry.dataset.name.split("@")[0] for entry in inputs}


def test_plain_mlflow_fetches_and_plain_transformers_loads_the_champion(mission: Any, tmp_path: Path) -> None:
    home, _, _, _ = mission
    code = (
        "import mlflow, sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "folder = mlflow.artifacts.download_artifacts('models:/pydocs-minute@champion', dst_path=sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(folder); tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "chat = tokenizer.apply_chat_template([{'role': 'user', 'content': 'hello'}], add_generation_prompt=True, "
        "return_tensors='pt', return_dict=True)\n"
        "print(model.generate(**chat, max_new_tokens=4, do_sample=False).shape[1] > chat['input_ids'].shape[1])\n"
        "assert not any(name.startswith('genai') for name in sys.modules)"
    )
    uri = f"sqlite:///{home.folder / 'home' / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout


def test_the_champion_answers_and_shows_where_it_came_from(mission: Any) -> None:
    home, _, report, _ = mission
    answered = home.genai("chat", "pydocs-minute", "-m", "What does os.getcwd do?", "--max-new-tokens", "8")
    assert answered.returncode == 0, answered.stderr
    shown = home.genai("models", "show", "pydocs-minute")
    assert shown.returncode == 0, shown.stderr
    for part in ("minute-corpus@", "minute-base@", "pydocs@"):
        assert part in shown.stdout
    assert by_name(report)["augment"]["artifact"]["digest"][:12] in shown.stdout
    listed = home.genai("storage", "verify")
    assert listed.returncode == 0
    assert " 0 damaged" in listed.stdout


def test_again_everything_is_reused_and_there_is_no_second_version(mission: Any) -> None:
    home, _, before, _ = mission
    claims = home.folder / "home" / "store" / "claims"
    standing = sorted(claims.rglob("*.json"))
    assert standing
    code, report, out = home.run("minute")
    assert code == 0, out
    assert sorted(claims.rglob("*.json")) == standing, "a night without news adds to no claim's log"
    assert not list((home.folder / "home" / "scratch" / "flows").iterdir()), "nor does a run that has been told"
    assert {stage["status"] for stage in report["stages"]} <= {"reused", "skipped"}
    assert report["model"]["version"] == before["model"]["version"]
    digests = {name: stage["artifact"]["digest"] for name, stage in by_name(before).items() if stage["artifact"]}
    again = {name: stage["artifact"]["digest"] for name, stage in by_name(report).items() if stage["artifact"]}
    assert again == digests


def test_a_changed_key_recomputes_only_what_follows(mission: Any) -> None:
    home, _, _, _ = mission
    code, report, out = home.run("minute", "--set", "correction.samples_per_prompt=3")
    assert code == 0, out
    status = {name: stage["status"] for name, stage in by_name(report).items()}
    assert status["sample-corrections"] == "computed"
    upstream = [
        name for name in status if name.startswith(("augment", "pretrain", "finetune", "synth", "train-g", "measure-g"))
    ]
    assert {status[name] for name in upstream} == {"reused"}
