"""What a job of a cluster is sent: settings, silence, no secrets, and nothing that its own machine has to say."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from genai_core.config.settings import Settings
from genai_core.launch.jobs import job_environment, submission_id


def test_whether_a_job_needs_a_token_is_its_clusters_to_say(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, s3_secret_key=SecretStr("hidden"), tracking_uri="http://mlflow:5000")
    given = job_environment(settings, "s3://bucket/prefix")
    assert "RAY_AUTH_MODE" not in given
    assert "hidden" not in given.values()
    assert (given["GENAI_STORAGE_URI"], given["GENAI_TRACKING_URI"]) == ("s3://bucket/prefix", "http://mlflow:5000")
    assert given["RAY_USAGE_STATS_ENABLED"] == "0"


def test_two_stores_on_one_cluster_have_jobs_of_their_own() -> None:
    names = {submission_id("ab" * 32, attempt, uri) for attempt in (1, 2) for uri in ("s3://team/a", "s3://team/b")}
    assert len(names) == 4 and all(name.startswith(f"genai-{('ab' * 20)}-") for name in names)
