"""Settings: usable defaults, secrets that stay secret, and errors that name the variable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from genai_core.config.settings import Settings, read_settings
from genai_core.errors import ConfigError


def test_defaults_lie_in_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    assert settings.home == tmp_path / ".genai"
    assert settings.storage_uri == str(tmp_path / ".genai" / "store")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/.genai/mlflow.db"
    assert settings.scratch == tmp_path / ".genai" / "scratch"
    assert not (tmp_path / ".genai").exists(), "reading settings makes nothing"


def test_the_environment_decides_and_arguments_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path))
    monkeypatch.setenv("GENAI_STORAGE_URI", "s3://team/genai")
    monkeypatch.setenv("GENAI_S3_SECRET_KEY", "HUSH")
    monkeypatch.setenv("GENAI_SOMETHING_OF_ANOTHER_PROGRAM", "1")
    settings = read_settings(stale_claim_seconds=9)
    assert (settings.home, settings.storage_uri, settings.stale_claim_seconds) == (tmp_path, "s3://team/genai", 9)
    assert "HUSH" not in repr(settings)
    assert "HUSH" not in str(settings.for_jobs()) and settings.for_jobs()["GENAI_STORAGE_URI"] == "s3://team/genai"
    assert read_settings(storage_uri=str(tmp_path / "x")).storage_uri == str(tmp_path / "x")


def test_a_job_reads_back_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(home=tmp_path, s3_endpoint_url="http://127.0.0.1:1", heartbeat_seconds=1.5)
    for name, value in given.for_jobs().items():
        monkeypatch.setenv(name, value)
    back = read_settings(home=tmp_path)
    assert back == given


@pytest.mark.parametrize(
    ("name", "value"),
    [("GENAI_STALE_CLAIM_SECONDS", "soon"), ("GENAI_STALE_CLAIM_SECONDS", "inf"), ("GENAI_HEARTBEAT_SECONDS", "HUSH")],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name) as caught:
        read_settings()
    assert "HUSH" not in str(caught.value)


def test_claims_that_live_runs_would_lose_are_refused() -> None:
    with pytest.raises(ConfigError, match="GENAI_STALE_CLAIM_SECONDS=3 is less than two heartbeats"):
        read_settings(stale_claim_seconds=3, heartbeat_seconds=2)


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(ConfigError, match="GENAI_STORAGE_URL"):
        read_settings(storage_url="x")


def test_storage_and_settings_import_in_a_blink_and_without_the_heavy_libraries() -> None:
    code = (
        "import sys, genai_core.config.settings, genai_core.storage.open, genai_core.storage.artifacts, "
        "genai_core.storage.collect, genai_core.storage.s3\n"
        "print(*{'boto3', 'botocore', 'torch', 'ray', 'mlflow', 'transformers', 'numpy', 'prefect'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [], done.stderr
