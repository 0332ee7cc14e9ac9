"""`genai storage mirror`, as a person calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from calling import call_genai

from genai_core.storage.artifact import ArtifactKind
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.folder import FolderStore
from genai_core.storage.owner import this_process


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one artifact, the one of the settings."""
    folder = tmp_path / "store"
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GENAI_STORAGE_URI", str(folder))
    claim = acquire(FolderStore(folder), "ab" * 32, this_process("one"), stale_seconds=20)
    assert isinstance(claim, Claim)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "text").write_bytes(b"a" * 1000)
    artifacts = ArtifactStore(FolderStore(folder), tmp_path / "scratch")
    artifacts.publish(claim, ArtifactKind.DATASET, "corpus", tmp_path / "made", {"title": "augment"})
    return folder


def test_it_is_told_what_was_copied(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "there"

    def mirror(*more: str) -> str:
        code, out, error = call_genai(monkeypatch, capsys, "storage", "mirror", target, *more)
        assert code == 0, error
        return " ".join(out.split())

    assert "1 artifacts (1.0 kB) and 3 records would be copied, 0 were there" in mirror("--dry-run")
    assert not any(path.is_file() for path in target.rglob("*"))
    assert "1 artifacts (1.0 kB) and 3 records copied, 0 were there" in mirror()
    assert "0 artifacts (0 B) and 0 records copied, 1 were there" in mirror()
    assert call_genai(monkeypatch, capsys, "storage", "verify", "--storage", target)[0] == 0


def test_a_damaged_artifact_ends_with_1(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [file] = store.glob("artifacts/*/a1/text")
    file.chmod(0o644)
    file.write_bytes(b"b" * 1000)
    code, out, _ = call_genai(monkeypatch, capsys, "storage", "mirror", tmp_path / "there")
    assert code == 1
    assert "corpus@abababab is damaged: text" in " ".join(out.split())


@pytest.mark.parametrize(
    ("target", "words"),
    [("", "address is empty"), ("ftp://x/y", "not known"), ("s3://", "not an S3 address"), ("{store}/in", "one place")],
)
def test_a_destination_that_cannot_be(
    store: Path, target: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = call_genai(monkeypatch, capsys, "storage", "mirror", target.format(store=store))
    assert code == 2
    assert words in error


def test_another_server_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from genai_core.cli.storage import mirror_settings

    monkeypatch.setenv("GENAI_S3_ENDPOINT_URL", "http://ours:1")
    monkeypatch.setenv("GENAI_S3_ACCESS_KEY", "ours")
    monkeypatch.setenv("GENAI_S3_SECRET_KEY", "hush")
    monkeypatch.setenv("GENAI_MIRROR_S3_ENDPOINT_URL", "http://theirs:2")
    monkeypatch.setenv("GENAI_MIRROR_S3_SECRET_KEY", "theirs")
    settings = mirror_settings()
    assert settings.s3_endpoint_url == "http://theirs:2"
    assert settings.s3_secret_key is not None and settings.s3_secret_key.get_secret_value() == "theirs"
    assert settings.s3_access_key is not None and settings.s3_access_key.get_secret_value() == "ours"
