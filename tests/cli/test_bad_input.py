"""Bad input: exit 2, one screen with value and remedy, before any stage runs, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from genai_core.cli.main import main

SCREEN_LINES = 24


class Told:
    """What a command ended with."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def genai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("GENAI_STORAGE_URI", "GENAI_TRACKING_URI", "GENAI_RAY_ADDRESS"):  # options set them: undone after
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["genai", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        captured = capsys.readouterr()
        return Told(int(done.value.code or 0), captured.out, " ".join(captured.err.split()))

    return call


def recipe(tmp_path: Path, data: dict[str, Any], **more: Any) -> str:
    content = {
        "name": "mine",
        "data": {"pairs": {"kind": "quotes"}, **data},
        **more,
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def refused(told: Told, tmp_path: Path, *parts: str) -> None:
    assert told.code == 2, told.err
    assert "Traceback" not in told.err
    for part in parts:
        assert part in told.err
    assert len(told.err) < SCREEN_LINES * 100
    store = tmp_path / "home" / "store"
    assert not store.exists() or not any(store.rglob("*.json")), "something was written before the refusal"


def test_an_unknown_recipe_key(genai: Any, tmp_path: Path) -> None:
    refused(
        genai("run", "minute", "--set", "pretraining.stepz=3"), tmp_path, "pretraining.stepz", "Did you mean 'steps'?"
    )


def test_a_wrong_type(genai: Any, tmp_path: Path) -> None:
    refused(
        genai("run", "minute", "--set", "pretraining.steps=many"), tmp_path, "pretraining.steps = 'many'", "integer"
    )


def test_a_missing_file(genai: Any, tmp_path: Path) -> None:
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(tmp_path / "nowhere")}})
    refused(genai("run", path), tmp_path, "nowhere")


def test_an_empty_file(genai: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(tmp_path / "empty.txt")}})
    refused(genai("run", path), tmp_path, "empty")


def test_binary_garbage_as_text(genai: Any, tmp_path: Path) -> None:
    (tmp_path / "garbage.txt").write_bytes(bytes(range(256)) * 40)
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(tmp_path / "garbage.txt")}})
    refused(genai("run", path), tmp_path, "garbage.txt")


def test_jsonl_without_the_named_field(genai: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"content": f"row {number} with some words in it"}) for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    source = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl"), "text_field": "contents"}
    refused(genai("run", recipe(tmp_path, {"source": source})), tmp_path, "contents", "'content'")


def test_more_than_a_percent_of_unreadable_rows_names_the_first(genai: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"row {number} with some words in it"}) for number in range(200)]
    rows[6] = rows[40] = rows[90] = "{not json"
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    path = recipe(tmp_path, {"source": {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}})
    refused(genai("run", path), tmp_path, "rows.jsonl", "7")


def test_a_base_model_that_is_not_there(genai: Any, tmp_path: Path) -> None:
    base = {"base": {"kind": "folder", "path": str(tmp_path / "model")}}
    text = tmp_path / "text.txt"
    text.write_text("some words\n" * 100)
    path = recipe(tmp_path, {"source": {"kind": "text", "path": str(text)}, "tokenizer": {"kind": "base"}}, **base)
    refused(genai("run", path), tmp_path, "model")


def test_a_hub_model_without_the_hub(genai: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some words\n" * 100)
    data = {"source": {"kind": "text", "path": str(text)}, "tokenizer": {"kind": "base"}}
    refused(
        genai("run", recipe(tmp_path, data, base={"kind": "hub", "repo": "nobody/nothing"})), tmp_path, "nobody/nothing"
    )


def test_a_batch_that_does_not_divide(genai: Any, tmp_path: Path) -> None:
    told = genai("run", "minute", "--set", "finetuning.global_batch_tokens=1000")
    refused(told, tmp_path, "global_batch_tokens=1,000", "Set it to 1,024")


def test_a_sequence_longer_than_the_model(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "minute", "--set", "base.max_seq_len=128"), tmp_path, "longer than the model takes")


@pytest.mark.parametrize("uri", ["ftp://somewhere/store", "s3://"])
def test_a_bad_storage_uri(genai: Any, tmp_path: Path, uri: str) -> None:
    refused(genai("run", "minute", "--storage", uri), tmp_path, uri.split(":", maxsplit=1)[0])


def test_a_bad_tracking_uri(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "minute", "--mlflow", "ftp://somewhere"), tmp_path, "ftp")


def test_storage_that_cannot_be_written(genai: Any, tmp_path: Path) -> None:
    # root may write anywhere but where the system itself forbids it
    refused(genai("run", "minute", "--storage", "/proc/genai-store"), tmp_path, "/proc/genai-store")


def test_a_report_into_a_folder_that_is_not_there(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "minute", "--report", str(tmp_path / "no" / "report.json")), tmp_path, "there is no folder")


def test_an_unknown_recipe(genai: Any, tmp_path: Path) -> None:
    refused(genai("run", "quikstart"), tmp_path, "Did you mean 'quickstart'?")


def test_an_unknown_option_is_the_users_mistake(genai: Any, tmp_path: Path) -> None:
    assert genai("run", "minute", "--frobnicate").code == 2


def test_an_unknown_model(genai: Any, tmp_path: Path) -> None:
    told = genai("chat", "nobody", "-m", "hello")
    assert told.code == 2
    assert "nobody" in told.err


def test_an_unreachable_tracking_server_ends_with_its_address(tmp_path: Path) -> None:
    environment = {**os.environ, "GENAI_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "genai_core.cli", "run", "minute", "--mlflow", "http://127.0.0.1:9"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_help_answers_at_once(tmp_path: Path) -> None:
    code = "import sys, genai_core.cli.main; bad = {'torch', 'ray', 'mlflow', 'prefect', 'transformers'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
