"""Secrets never reach what is shown."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import SecretStr

from genai_core.config.base import Config
from genai_core.tracking.recording import Recording, RunRecord
from genai_core.tracking.runs import Tracker, flatten
from genai_core.tracking.secrets import MASK, masked, shown

SECRET = "hunter2-do-not-tell"


class Connection(Config):
    endpoint: str = f"https://bob:{SECRET}@s3.local:9000/bucket?X-Amz-Signature={SECRET}&part=3"
    key: SecretStr = SecretStr(SECRET)
    api_key: str = SECRET
    max_new_tokens: int = 48
    tokenizer: str = "bpe"
    empty_password: str = ""


def test_config_is_masked_but_stays_readable() -> None:
    plain = masked({"s3": Connection(), "list": [Connection()], "aws_secret_access_key": SECRET})
    assert SECRET not in json.dumps(plain)
    assert plain["s3"]["endpoint"] == f"https://s3.local:9000/bucket?X-Amz-Signature={MASK}&part=3"
    assert plain["s3"]["max_new_tokens"] == 48
    assert plain["s3"]["tokenizer"] == "bpe"
    assert SECRET in repr(Connection().model_dump())  # without masking it would be told


def test_addresses_keep_host_and_path() -> None:
    assert shown("postgresql+psycopg://u:p%40ss@db:5432/mlflow") == "postgresql+psycopg://db:5432/mlflow"
    assert shown("sqlite:////home/a/mlflow.db") == "sqlite:////home/a/mlflow.db"
    assert shown("mail me@example.org about https://x.org/a@b") == "mail me@example.org about https://x.org/a@b"


def test_nothing_in_mlflow_or_on_disk_holds_a_secret(tracker: Tracker, tmp_path: Path) -> None:
    config = {"storage": masked(Connection()), "raw": {"api_key": SECRET, "uri": f"s3://a:{SECRET}@b/c"}}
    record = RunRecord(stage_key="k" * 64, title="t", config=config, tags={"uri": f"http://u:{SECRET}@h", "token": "4"})
    recording = Recording(tracker, tmp_path / "work", record).start()
    tags = {"note": f"http://u:{SECRET}@h/x", "s3.password": SECRET}
    assert recording.finish("FINISHED", tags=tags), recording.error
    run = tracker.client.get_run(recording.run_id)
    assert run.data.params["raw.uri"] == "s3://b/c"
    assert run.data.tags["s3.password"] == MASK
    tracker.log_params(recording.run_id, {"direct": Connection()})  # a config that nobody has masked before
    for path in tmp_path.rglob("*"):  # database, artifacts, run.json
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_params_are_flat_and_short() -> None:
    flat = flatten({"a": {"b": [1, 2], "c": [{"d": None}, "x"], "e": {}}, "long": "y" * 900, "odd name[0]": True})
    assert flat == {
        "a.b": "[1, 2]",
        "a.c.0.d": "null",
        "a.c.1": "x",
        "a.e": "{}",
        "long": "y" * 500,
        "odd name_0_": "true",
    }
