"""The images of compose.yaml, made step by step in a clean Debian root, start what their services start."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from genai_core.cli.services import answers
from tests.platform.clean_root import CleanRoot, missing
from tests.platform.stack import free_ports

pytestmark = [pytest.mark.platform, pytest.mark.skipif(bool(missing()), reason=missing() or "all is here")]
ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker/Dockerfile"
READY_SECONDS = 180.0


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian root with Python, to be copied."""
    folder = tmp_path_factory.mktemp("debian") / "root"
    CleanRoot(folder).bootstrap()
    return folder


@contextmanager
def built(debian: Path, folder: Path, target: str) -> Iterator[CleanRoot]:
    subprocess.run(["cp", "-a", str(debian), str(folder)], check=True)
    root = CleanRoot(folder)
    with root.mounted():
        root.build(DOCKERFILE, ROOT, target)
        yield root
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(root: CleanRoot, command: list[str], environment: dict[str, str], url: str) -> Iterator[None]:
    """Run a service until the end of the block; fail unless it becomes ready."""
    log = root.folder.with_name("service.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            root.command(command),
            env=root.environment(environment),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(url):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield
    finally:
        subprocess.run(["pkill", "--signal", "KILL", "--session", str(process.pid)], check=False)
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_the_targets_of_the_file_are_those_that_compose_builds() -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == {"server", "worker"}


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="no compose: apt-get install docker-compose")
def test_compose_takes_its_file_and_no_service_starts_without_its_password(tmp_path: Path) -> None:
    names = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker/compose.yaml").read_text()))
    assert names == set(re.findall(r"\b[A-Z0-9]+(?:_[A-Z0-9]+)+\b", the_loop_of_the_readme()))

    def config(given: set[str]) -> subprocess.CompletedProcess[str]:
        passwords = tmp_path / ".env"
        passwords.write_text("".join(f"{name}=any\n" for name in sorted(given)))
        command = ["docker-compose", "--env-file", str(passwords), "-f", str(ROOT / "docker/compose.yaml"), "config"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    whole = config(names)
    assert whole.returncode == 0, whole.stderr
    assert yaml.safe_load(whole.stdout)["services"]["worker"]["depends_on"]["mlflow"] == {
        "condition": "service_healthy"
    }
    for name in names:
        refused = config(names - {name})
        assert refused.returncode != 0 and name in refused.stderr


def the_loop_of_the_readme() -> str:
    """Return the line of docker/README.md that names what docker/.env must hold."""
    lines = (ROOT / "docker/README.md").read_text().splitlines()
    return next(line for line in lines if line.startswith("for name in "))


def test_the_servers_start_in_their_image_as_a_user_without_rights(debian: Path, tmp_path: Path) -> None:
    mlflow, prefect = free_ports(2)
    with built(debian, tmp_path / "server", "server") as root:
        assert root.run(["id", "-un"]).stdout.strip() == "genai"
        assert root.run(["python", "-c", "import torch"]).returncode != 0, "the servers need no torch"
        passwords = {"MLFLOW_AUTH_ADMIN_PASSWORD": "of-the-tests", "MLFLOW_FLASK_SERVER_SECRET_KEY": "any-text"}
        command = ["python", "-m", "genai_core.tracking.server", "sqlite:////tmp/mlflow.db", "/tmp/mlflow"]
        more = {**passwords, "MLFLOW_ARTIFACTS_DESTINATION": "/tmp/kept"}
        with running(root, [*command, "127.0.0.1", str(mlflow)], more, f"http://127.0.0.1:{mlflow}/health"):
            pass
        command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect)]
        with running(root, command, {}, f"http://127.0.0.1:{prefect}/api/health"):
            pass


def test_the_smallest_mission_runs_in_the_image_of_the_worker(debian: Path, tmp_path: Path) -> None:
    with built(debian, tmp_path / "worker", "worker") as root:
        assert root.run(["id", "-un"]).stdout.strip() == "genai"
        more = {"GENAI_HOME": "/tmp/home", "COLUMNS": "160"}
        done = root.run(["genai", "run", "minute", "--set", "recursion.generations=0"], more=more)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "champion" in done.stdout
