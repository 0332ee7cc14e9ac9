"""What `genai up` refuses, what it uses instead of starting it, and what a worker's flows are given."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from calling import call_genai
from fake_service import fake_service

from genai_core.cli import flow_worker, services
from genai_core.cli.kept import KeptPrefect
from genai_core.cli.services import (
    drop_lease,
    forget_address,
    free_port,
    hold_lease,
    keeper_of,
    other_leases,
    prefect_environment,
    read_address,
    services_folder,
    url_of,
    write_address,
)
from genai_core.cli.supervise import Started, State
from genai_core.cli.up import ALL, Platform, Ports, allowed_hosts, is_loopback, ray_folder, remove_ray_folder
from genai_core.config.load import list_recipes
from genai_core.config.settings import Settings
from genai_core.errors import ConfigError
from genai_core.launch.head import head_command, head_environment, job_server
from genai_core.tracking.server import client_credentials, write_auth_config

SECRETS = ("PREFECT_SERVER_API_AUTH_STRING", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (*SECRETS, "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GENAI_STORAGE_URI", "GENAI_TRACKING_URI", "GENAI_RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def platform(home: Path, **given: Any) -> Platform:
    return Platform(Settings(home=home, **given), "127.0.0.1", Ports(0, 0, 0), ALL)


def test_a_network_address_needs_passwords_for_both_servers(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, missing in (((), SECRETS), (SECRETS[:1], SECRETS[1:]), (SECRETS[1:], SECRETS[:1])):
        for name in SECRETS:
            monkeypatch.delenv(name, raising=False)
        for name in given:
            monkeypatch.setenv(name, "me:a long enough secret")
        for command in ("up", "ui"):
            code, _, err = call_genai(monkeypatch, capsys, command, "--host", "0.0.0.0")
            assert code == 2
            assert f"Set {', '.join(missing)} (" in err
            assert "a long enough secret" not in err
    assert not (home / "logs").exists(), "nothing was started"


def test_servers_of_others_need_no_passwords_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    _, _, err = call_genai(monkeypatch, capsys, "up", "--host", "0.0.0.0")
    assert "Set MLFLOW_AUTH_ADMIN_PASSWORD, MLFLOW_FLASK_SERVER_SECRET_KEY (" in err


def test_passwords_without_the_package_or_the_key_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "a long enough secret")
    code, _, err = call_genai(monkeypatch, capsys, "up")
    assert code == 2 and "MLFLOW_FLASK_SERVER_SECRET_KEY" in err
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "key")
    monkeypatch.setattr("genai_core.tracking.server.find_spec", lambda name: None)
    code, _, err = call_genai(monkeypatch, capsys, "up")
    assert code == 2 and "genai[auth]" in err


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_host_that_is_no_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call_genai(monkeypatch, capsys, "up", "--host", "my-machine")
    assert code == 2 and "'my-machine' is not an IP address" in err


def test_a_second_one_on_a_home_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (services_folder(home) / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4242")
        lock.flush()
        code, _, err = call_genai(monkeypatch, capsys, "ui")
    assert code == 2 and "(process 4242)" in err and "GENAI_HOME" in err


def test_what_the_settings_name_is_used_and_not_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = {"/api/health": True, "/health": b"OK", "/api/version": {"ray_version": "2.60.0"}}
    with fake_service(healthy) as server:
        monkeypatch.setenv("PREFECT_API_URL", f"{server}/api/")
        one = platform(home, ray_address=server, tracking_uri=server)
        for service, variable in (
            (one.prefect, "PREFECT_API_URL"),
            (one.mlflow, "GENAI_TRACKING_URI"),
            (one.ray, "GENAI_RAY_ADDRESS"),
        ):
            assert not isinstance(service, Started)
            service.step(time.monotonic())
            assert (service.state, service.detail) == (State.READY, f"not ours: {variable}")
        given = one.worker_environment()
    assert (given["PREFECT_API_URL"], given["GENAI_RAY_ADDRESS"], given["GENAI_TRACKING_URI"]) == (
        f"{server}/api",
        server,
        server,
    )
    one.prefect.step(time.monotonic() + 1000)
    assert (one.prefect.state, one.prefect.detail) == (State.SILENT, "does not answer; not ours: PREFECT_API_URL")


def test_a_database_of_others_is_used_without_a_server_and_its_password_is_not_shown(home: Path) -> None:
    one = platform(home, tracking_uri="postgresql://me:secret@db/mlflow")
    assert not isinstance(one.mlflow, Started)
    assert "secret" not in one.mlflow.address
    assert one.worker_environment()["GENAI_TRACKING_URI"] == "postgresql://me:secret@db/mlflow"


def test_a_flow_is_given_this_ray_this_mlflow_this_store(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    one = platform(home, storage_uri="my-store")
    assert isinstance(one.prefect, KeptPrefect)
    one.prefect.address = "http://127.0.0.1:4242"
    given = one.worker_environment()
    assert given["PREFECT_API_URL"] == "http://127.0.0.1:4242/api"
    assert given["GENAI_RAY_ADDRESS"] == one.ray.address
    assert given["GENAI_TRACKING_URI"] == one.mlflow.address
    assert given["GENAI_STORAGE_URI"] == str(tmp_path / "my-store"), "flows run in another folder"
    assert Path(given["GENAI_PROJECT"], "flows", "lifecycle.py").is_file()
    assert one.worker.after == (one.prefect, one.mlflow, one.ray)


def test_a_port_that_is_taken_is_replaced_and_that_is_said(home: Path) -> None:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        port = theirs.getsockname()[1]
        one = Platform(Settings(home=home), "127.0.0.1", Ports(0, port, port), ALL)
        for service in (one.mlflow, one.ray):
            assert not service.address.endswith(f":{port}")
            assert service.note == f"port {port} is taken"
    assert free_port(port) == port


def test_ray_listens_to_this_machine_alone_and_says_whether_it_wants_tokens(tmp_path: Path) -> None:
    command = head_command(8265, 10001, tmp_path)
    assert {"--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--dashboard-port=8265"} <= {*command}
    given = head_environment({"PATH": "/bin"})
    assert (given["RAY_AUTH_MODE"], given["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]) == ("disabled", "0")
    assert given["PATH"] == f"{Path(sys.executable).parent}:/bin", "a job's entrypoint is `python`"
    assert head_environment({"RAY_AUTH_MODE": "token"})["RAY_AUTH_MODE"] == "token"
    assert [job_server(one) for one in ("ray:8265", "https://ray/")] == ["http://ray:8265", "https://ray"]


def test_the_folder_of_a_ray_that_was_killed_is_removed(home: Path) -> None:
    first = ray_folder(home)
    second = ray_folder(home)
    assert not first.exists() and second.is_dir()
    assert len(str(second)) < len(tempfile.gettempdir()) + 20
    remove_ray_folder(home)
    assert not second.exists()


def test_mlflows_users_lie_in_the_home_and_are_allowed_nothing(home: Path) -> None:
    services_folder(home)
    text = write_auth_config(home).read_text()
    assert "default_permission = NO_PERMISSIONS" in text
    assert f"sqlite:///{home}/mlflow-users.db" in text
    assert client_credentials({}) == {}
    assert client_credentials({"MLFLOW_AUTH_ADMIN_PASSWORD": "p"}) == {
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": "p",
    }


def test_names_and_urls_of_an_open_server() -> None:
    assert url_of("0.0.0.0", 1) == url_of("127.0.0.1", 1) == "http://127.0.0.1:1"
    assert url_of("::1", 1) == "http://[::1]:1"
    allowed = allowed_hosts("10.0.0.5").split(",")
    assert {"10.0.0.5", "10.0.0.5:*", socket.gethostname(), "localhost:*"} <= {*allowed}


def test_a_server_with_a_password_lets_our_own_flows_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "PREFECT_API_AUTH_STRING" not in prefect_environment(home)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:secret")
    assert prefect_environment(home)["PREFECT_API_AUTH_STRING"] == "me:secret"


def test_an_address_file_is_removed_by_whom_it_is_of(home: Path) -> None:
    write_address(home, "mlflow", "http://a")
    path = services_folder(home) / "mlflow.json"
    mine = path.read_text()
    path.write_text(json.dumps({"url": "http://b", "pid": 1}))
    forget_address(home, "mlflow")
    assert read_address(home, "mlflow") == "http://b"
    path.write_text(mine)
    forget_address(home, "mlflow")
    assert read_address(home, "mlflow") == ""


def test_a_keeper_that_nobody_needs_ends_at_once_when_it_is_told_to(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper is a real process; its server is a stand-in that sleeps, found first on the path of modules."""
    stand_in = home.parent / "modules" / "prefect"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "__main__.py").write_text("import time; time.sleep(60)")
    path = os.pathsep.join([str(stand_in.parent), *sys.path])
    hold_lease(home)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "genai_core.cli.services", str(home), "0"], env={**os.environ, "PYTHONPATH": path}
    )
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        deadline = time.monotonic() + 20
        while keeper_of(home) != keeper.pid:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (services_folder(home) / "leases" / str(other.pid)).touch()
        assert other_leases(home) == [other.pid]
        drop_lease(home)  # another run needs it: it is not even asked
        time.sleep(0.5)
        assert keeper.poll() is None
        other.kill()
        other.wait()
        hold_lease(home)
        drop_lease(home)
        began = time.monotonic()
        assert keeper.wait(10) == 0
        assert time.monotonic() - began < services.LINGER_SECONDS, "it lingered"
        assert keeper_of(home) == 0
    finally:
        for process in (keeper, other):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def test_what_is_deployed_is_found_from_wherever_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (flow_worker.project_folder() / "flows").is_dir()
    assert {path.stem for path in list_recipes()} >= {*flow_worker.RECIPES}


def test_a_tracking_address_that_cannot_be_is_refused_before_anything_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir(parents=True)
    (home / "mlflow.db").write_text("no database, and long enough to be told apart")
    code, _, err = call_genai(monkeypatch, capsys, "up")
    assert code == 2 and "is not an SQLite database" in err
    assert not (home / "logs").exists()


def test_access_that_is_denied_is_not_tried_again(home: Path) -> None:
    with (
        fake_service({}, password="Basic other") as server,
        pytest.raises(ConfigError, match="PREFECT_API_AUTH_STRING"),
    ):
        flow_worker.online_workers(f"{server}/api")
