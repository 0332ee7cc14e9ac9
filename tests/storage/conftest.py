from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from genai_core.config.settings import Settings
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.folder import FolderStore

BUCKET = "genai-tests"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("GENAI_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def store(folder: FolderStore, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(folder, tmp_path / "scratch")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Return the address of an S3 server on loopback that enforces conditional writes."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    ).create_bucket(Bucket=BUCKET)
    yield address
    server.stop()


@pytest.fixture
def s3_settings(s3_server: str, tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home", s3_endpoint_url=s3_server, s3_access_key="AKIDPUBLIC", s3_secret_key="HUSH-HUSH"
    )
