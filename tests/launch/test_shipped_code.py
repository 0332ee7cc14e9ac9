"""Code that is sent along with jobs: the package alone, the same bytes for the same code, and it stands above a cluster's copy."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import genai_core
from genai_core.config.compute import ComputeConfig
from genai_core.config.data import AugmentationConfig, QuotePairs, TextSource, TrainTokenizer
from genai_core.config.model import ScratchBase
from genai_core.config.settings import Settings, read_settings
from genai_core.config.stages import AugmentStage, PretrainStage
from genai_core.config.training import TrainingConfig
from genai_core.data.resolve import resolve_source
from genai_core.errors import ConfigError, TransientError
from genai_core.launch.jobs import JobsLauncher, entrypoint
from genai_core.launch.shipped_code import pack_code
from genai_core.stages.contract import StageJob
from genai_core.stages.registry import STAGES
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.digest import digest_json
from genai_core.storage.open import open_store
from genai_core.storage.owner import this_process
from tests.launch.ray_head import running_head


def names(archive: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(archive)).namelist()


def test_the_package_is_sent_and_nothing_else(tmp_path: Path) -> None:
    packed = pack_code()
    found = names(packed)
    source = Path(genai_core.__file__).parent
    assert {source.parent / name for name in found} == {*source.rglob("*.py")}
    zipfile.ZipFile(io.BytesIO(packed)).extractall(tmp_path)
    command = [sys.executable, "-c", "import genai_core.stages.registry as found; print(found.__file__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert Path(done.stdout.strip()) == tmp_path / "genai_core/stages/registry.py"


def test_the_same_code_gives_the_same_bytes_wherever_and_whenever_it_was_written(tmp_path: Path) -> None:
    def write(place: str, text: str, order: str = "ab") -> Path:
        package = tmp_path / place / "genai_core"
        (package / "__pycache__").mkdir(parents=True)
        (package / "__pycache__/a.pyc").write_text(place)
        for name in order:
            (package / f"{name}.py").write_text(text)
        return package

    first, second = write("first", "x = 1\n"), write("second", "x = 1\n", order="ba")
    (second / "a.py").touch()
    (second / "a.py").chmod(0o600)
    assert pack_code(first) == pack_code(second)
    assert names(pack_code(first)) == ["genai_core/a.py", "genai_core/b.py"]
    assert pack_code(write("third", "x = 2\n")) != pack_code(first)


def test_what_is_no_code_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x" * 2000)
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"2,006 bytes of .* more than 1,000\. The largest file is .*weights\.bin"):
        pack_code(tmp_path, max_bytes=1000)


@pytest.mark.parametrize(("given", "home"), [({}, "/at/home/.genai"), ({"GENAI_HOME": "/its/own"}, "/its/own")])
def test_a_job_with_its_code_keeps_its_home_out_of_rays_folder(given: dict[str, str], home: str) -> None:
    assert entrypoint("name", False) == "python -m genai_core.stages run name"
    command = entrypoint("name", True).replace("python -m genai_core.stages run name", "sh -c 'echo $GENAI_HOME'")
    done = subprocess.run(["sh", "-c", command], env={"HOME": "/at/home", **given}, capture_output=True, text=True)
    assert done.stdout.strip() == home


class Client:
    """Of Ray's jobs: remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def get_job_status(self, name: str) -> str | None:
        if not self.given:
            raise RuntimeError("Request failed with status code 404")
        return "PENDING"

    def submit_job(self, *, runtime_env: dict[str, Any], **_: Any) -> None:
        folder = runtime_env.get("working_dir")
        self.given.append({**runtime_env, "packed": folder and Path(folder).read_bytes()})


@pytest.mark.parametrize("ship_code", [False, True])
def test_only_a_profile_that_says_so_sends_code(tmp_path: Path, ship_code: bool) -> None:
    launcher = JobsLauncher("http://127.0.0.1:8265", Settings(home=tmp_path), check=False)
    launcher._server._client = client = Client()
    job = job_of("augment", AugmentStage.model_construct(), {}, str(tmp_path), ship_code)
    launcher._submit("name", job, lambda method: launcher._server.ask(method, "name"))
    [given] = client.given
    assert given["packed"] == (pack_code() if ship_code else None)
    assert given["env_vars"]["GENAI_STORAGE_URI"] == str(tmp_path)
    assert not ship_code or not Path(given["working_dir"]).exists(), "the archive stays behind"


def job_of(stage: str, config: BaseModel, inputs: dict[str, ArtifactRef], store: str, ship_code: bool) -> StageJob:
    return StageJob(
        stage=stage,
        title=stage,
        key=digest_json([stage, ship_code]),
        attempt=1,
        kind=STAGES[stage].kind,
        name=stage,
        config=config.model_dump(mode="json"),
        inputs=inputs,
        compute=ComputeConfig(ship_code=ship_code, threads=1, precision="float32", micro_batch_rows=2),
        storage_uri=store,
    )


@pytest.mark.platform
def test_a_cluster_with_another_copy_runs_the_code_that_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the job's driver and on its workers; Ray is sent the archive once.

    The cluster's copy lies as in our image: where Ray was started, which `python -m` looks into first, and where it is installed.
    """
    text, other = tmp_path / "text", tmp_path / "other/genai_core"
    text.mkdir()
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('this is the copy of the cluster')\n")
    for number in range(40):
        lines = [" ".join(f"word{number * step % 97}" for step in range(at, at + 10)) for at in range(1, 81, 10)]
        (text / f"{number:02}.txt").write_text(" ".join(f"{line.capitalize()}." for line in lines))
    source = TextSource(path=str(text))
    augmentation = AugmentationConfig(
        source=source, pairs=QuotePairs(), tokenizer=TrainTokenizer(vocab_size=300), seq_len=32
    )
    base = ScratchBase(n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48, max_seq_len=32)
    training = TrainingConfig(steps=2, seq_len=32, global_batch_tokens=64)
    settings = read_settings(home=tmp_path / "home")
    objects = open_store(settings.storage_uri, settings)
    own = {"PYTHONPATH": str(other.parent), "HOME": str(tmp_path), "GENAI_HOME": ""}
    with running_head(other.parent, more=own) as address:
        launcher = JobsLauncher(address, settings)
        uploads: list[str] = []
        client = launcher._server._connect()
        upload = client._upload_package
        monkeypatch.setattr(
            client,
            "_upload_package",
            lambda uri, *args, **more: (uploads.append(uri), upload(uri, *args, **more)),
        )

        def run(stage: str, config: BaseModel, inputs: dict[str, ArtifactRef], ship_code: bool) -> ArtifactRef:
            job = job_of(stage, config, inputs, settings.storage_uri, ship_code)
            claim = acquire(objects, job.key, this_process("test").model_copy(update={"pid": 0}), stale_seconds=20.0)
            assert isinstance(claim, Claim)
            outcome = launcher.run(job, claim, on_row=lambda row: None, should_stop=lambda: False)
            return ArtifactRef.model_validate(outcome["artifact"])

        augment = AugmentStage(augmentation=augmentation)
        inputs = {"source": resolve_source(source)}
        with pytest.raises(TransientError, match="this is the copy of the cluster"):
            run("augment", augment, inputs, ship_code=False)
        corpus = run("augment", augment, inputs, ship_code=True)
        model = run("pretrain", PretrainStage(base=base, training=training), {"corpus": corpus}, ship_code=True)
    assert model.kind == "model"
    assert len(uploads) == 1
    assert (tmp_path / ".genai/scratch").is_dir()
