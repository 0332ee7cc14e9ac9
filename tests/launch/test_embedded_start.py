"""A job host whose Ray did not start: the next try has another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from genai_core.config.compute import ComputeConfig
from genai_core.config.settings import read_settings
from genai_core.errors import ClusterStartError
from genai_core.launch.embedded import EmbeddedLauncher
from genai_core.stages.contract import StageJob
from genai_core.storage.artifact import ArtifactKind
from genai_core.storage.claims import Claim
from genai_core.storage.folder import FolderStore


def test_a_host_without_ray_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "a-file"))  # no session can be put into a file
    launcher = EmbeddedLauncher(read_settings(home=tmp_path))
    job = StageJob(
        stage="pretrain",
        title="pretrain",
        key="0" * 64,
        attempt=1,
        kind=ArtifactKind.MODEL,
        name="corpus",
        config={},
        inputs={},
        compute=ComputeConfig(),
        storage_uri=str(tmp_path / "store"),
    )
    claim: Any = Claim(FolderStore(tmp_path / "store"), job.key, 1, 1)
    try:
        launcher.warm_up()
        first = launcher.host_pid
        assert first is not None
        with pytest.raises(ClusterStartError, match="Ray did not start"):
            launcher.run(job, claim, on_row=lambda row: None, should_stop=lambda: False)
        assert launcher.host_pid is None
        assert not psutil.pid_exists(first)
        launcher.warm_up()
        assert launcher.host_pid not in (None, first)
    finally:
        launcher.close()
