"""The doctor finds each fault, names it in one line with a remedy, and is quick about it."""

from __future__ import annotations

import json
import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from calling import call_genai
from fake_service import fake_service

from genai_core.cli import doctor_machine, doctor_services
from genai_core.cli.asking import ask, basic
from genai_core.cli.doctor_machine import look_at_disks, look_at_machine, look_at_ports
from genai_core.cli.doctor_services import look_at_mlflow, look_at_prefect, look_at_ray, look_at_store
from genai_core.cli.findings import Finding, Verdict
from genai_core.cli.services import write_address
from genai_core.cli.up import Ports
from genai_core.config.settings import Settings

RAY = {
    "/api/version": {"ray_version": "2.60.0"},
    "/api/v0/cluster_metadata": {"data": {"pythonVersion": platform.python_version()}},
}
PREFECT = {
    "/api/health": True,
    "/api/admin/version": "3.8.8",
    "/api/work_pools/genai/workers/filter": [{"name": "w-1", "status": "ONLINE"}, {"name": "w-0", "status": "OFFLINE"}],
}
MLFLOW = {"/version": b"3.17.2", "/health": b"OK", "/api/2.0/mlflow/experiments/search": {"experiments": []}}
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(home=tmp_path / "home", **given)


@contextmanager
def services(home: Path, monkeypatch: pytest.MonkeyPatch, skew_seconds: float) -> Iterator[Settings]:
    """Run the three services with good answers and their clock so far from ours; yield settings that name them."""
    with (
        fake_service(RAY, skew_seconds=skew_seconds) as ray,
        fake_service(PREFECT, skew_seconds=skew_seconds) as prefect,
        fake_service(MLFLOW, skew_seconds=skew_seconds) as mlflow,
    ):
        monkeypatch.setenv("PREFECT_API_URL", f"{prefect}/api")
        yield settings(home, ray_address=ray, tracking_uri=mlflow)


def faults(findings: Iterator[Finding]) -> list[Finding]:
    bad = [finding for finding in findings if finding.verdict is Verdict.BAD]
    assert all(finding.remedy and "\n" not in finding.detail + finding.remedy for finding in bad)
    return bad


def test_a_clock_is_compared_to_the_second() -> None:
    with fake_service({"/": 1}, skew_seconds=300) as fast, fake_service({"/": 1}) as right:
        assert ask(f"{fast}/").skew_seconds == pytest.approx(300, abs=1)
        assert ask(f"{right}/").skew_seconds == pytest.approx(0, abs=1)
        assert ask(f"{right}/nothing").status == 404
    gone = ask(f"{right}/")
    assert (gone.status, gone.skew_seconds) == (0, None)
    assert "refused" in gone.reason


@pytest.mark.parametrize("skew", [0.0, 2.0, -2.0])
def test_good_services_give_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float) -> None:
    with services(tmp_path, monkeypatch, skew) as here:
        found = [*look_at_ray(here), *look_at_prefect(here), *look_at_mlflow(here), *look_at_store(here)]
    assert not faults(iter(found)), found
    assert "w-1" in next(finding.detail for finding in found if finding.name == "worker")


@pytest.mark.parametrize("skew", [320.0, -320.0])
def test_a_clock_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float) -> None:
    with services(tmp_path, monkeypatch, skew) as here:
        found = faults(iter([*look_at_ray(here), *look_at_prefect(here), *look_at_mlflow(here)]))
    assert [finding.name for finding in found] == ["ray's clock", "prefect's clock", "mlflow's clock"]
    assert all(("ahead of" if skew > 0 else "behind") in finding.detail for finding in found)
    assert all("NTP" in finding.remedy for finding in found)


def test_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_ray = {
        "/api/version": {"ray_version": "2.9.0"},
        "/api/v0/cluster_metadata": {"data": {"pythonVersion": "3.8.2"}},
    }
    with (
        fake_service(old_ray) as ray,
        fake_service({**PREFECT, "/api/admin/version": "2.1.0"}) as prefect,
        fake_service({**MLFLOW, "/version": b"2.0.1"}) as mlflow,
    ):
        monkeypatch.setenv("PREFECT_API_URL", f"{prefect}/api")
        here = settings(tmp_path, ray_address=ray.removeprefix("http://"), tracking_uri=mlflow)
        found = faults(iter([*look_at_ray(here), *look_at_prefect(here), *look_at_mlflow(here)]))
    said = {finding.name: finding.detail for finding in found}
    assert {*said} == {"ray server", "ray's python", "prefect server", "mlflow server"}
    assert "runs 2.9.0, here is 2.60.0" in said["ray server"]
    assert said["ray's python"].startswith("3.8.2")


def test_what_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{NOWHERE}/api")
    here = settings(tmp_path, ray_address=NOWHERE, tracking_uri=NOWHERE)
    found = faults(iter([*look_at_ray(here), *look_at_prefect(here), *look_at_mlflow(here)]))
    assert [finding.name for finding in found] == ["ray server", "prefect server", "mlflow server"]
    assert all("does not answer" in finding.detail for finding in found)
    for finding, variable in zip(found, ("GENAI_RAY_ADDRESS", "PREFECT_API_URL", "GENAI_TRACKING_URI"), strict=True):
        assert variable in finding.remedy


def test_an_address_that_is_no_job_server(tmp_path: Path) -> None:
    [finding] = faults(look_at_ray(settings(tmp_path, ray_address="ray://127.0.0.1:10001")))
    assert "http://HOST:8265" in finding.remedy


def test_wrong_credentials_and_right_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password = basic("me:secret")["Authorization"]
    with (
        fake_service(RAY, password="Bearer t0ken") as ray,
        fake_service(PREFECT, password=password) as prefect,
        fake_service(MLFLOW, password=password) as mlflow,
    ):
        monkeypatch.setenv("PREFECT_API_URL", f"{prefect}/api")
        here = settings(tmp_path, ray_address=ray, tracking_uri=mlflow)
        found = faults(iter([*look_at_ray(here), *look_at_prefect(here), *look_at_mlflow(here)]))
        assert [finding.name for finding in found] == ["ray server", "prefect server", "mlflow server"]
        remedies = ("RAY_AUTH_TOKEN", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME")
        assert all(remedy in finding.remedy for remedy, finding in zip(remedies, found, strict=True))
        assert not any("secret" in finding.detail + finding.remedy for finding in found)
        for name, value in {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "t0ken",
            "PREFECT_API_AUTH_STRING": "me:secret",
            "MLFLOW_TRACKING_USERNAME": "me",
            "MLFLOW_TRACKING_PASSWORD": "secret",
        }.items():
            monkeypatch.setenv(name, value)
        found = [*look_at_ray(here), *look_at_prefect(here), *look_at_mlflow(here)]
        assert not faults(iter(found)), found


def bucket_settings(tmp_path: Path, server: str) -> Settings:
    return settings(
        tmp_path, storage_uri="s3://bucket/genai", s3_endpoint_url=server, s3_access_key="a", s3_secret_key="b"
    )


def test_a_bucket_that_is_not_there_and_one_that_is(tmp_path: Path) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        here = bucket_settings(tmp_path, address)
        [finding] = faults(look_at_store(here))
        assert finding.detail.startswith("There is no bucket 'bucket'")
        assert "Create it" in finding.remedy
        boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        ).create_bucket(Bucket="bucket")
        assert not faults(look_at_store(here))
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("code", "words"),
    [("InvalidAccessKeyId", "GENAI_S3_ACCESS_KEY"), ("RequestTimeTooSkewed", "timedatectl set-ntp true")],
)
def test_an_s3_server_that_refuses(tmp_path: Path, code: str, words: str) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    with fake_service({}, denied=body, skew_seconds=1000) as server:
        store, clock = faults(look_at_store(bucket_settings(tmp_path, server)))
    assert words in store.remedy
    assert clock.name == "store's clock"
    assert "1000 s ahead" in clock.detail or "999 s ahead" in clock.detail


def test_an_s3_server_that_is_away_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    [finding] = faults(look_at_store(bucket_settings(tmp_path, NOWHERE)))
    assert "could not be reached" in finding.detail
    assert time.monotonic() - began < doctor_services.PATIENCE_SECONDS + 2


def test_a_server_that_takes_the_call_and_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        here = settings(tmp_path, ray_address=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        [finding] = faults(look_at_ray(here))
    assert "no answer in time" in finding.detail
    assert time.monotonic() - began < doctor_services.PATIENCE_SECONDS + 1


def test_too_little_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "ENOUGH_MEMORY", 10**18)
    monkeypatch.setattr(doctor_machine, "ENOUGH_DISK", 10**18)
    [finding] = [one for one in look_at_machine() if one.name == "memory"]
    assert finding.verdict is Verdict.BAD and finding.remedy
    [finding] = look_at_disks(settings(tmp_path))  # home, scratch and store on one disk: one line
    assert finding.verdict is Verdict.BAD and "genai storage gc" in finding.remedy


def test_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "CGROUP", tmp_path)
    whole = doctor_machine.available_memory()
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert doctor_machine.available_memory() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor_machine.available_memory() > min(whole, 10**8)


def test_ports_that_others_have(tmp_path: Path) -> None:
    here = settings(tmp_path)
    with socket.socket() as theirs, socket.socket() as other, socket.socket() as third:
        for one in (theirs, other, third):
            one.bind(("127.0.0.1", 0))
        ports = Ports(*(one.getsockname()[1] for one in (theirs, other, third)))
        other.close()
        third.close()
        theirs.listen()
        [finding] = look_at_ports(here, ports)
        assert finding.verdict is Verdict.NOTE
        assert f"{ports.prefect}, which genai up wants for prefect, is taken by process" in finding.detail
        assert "--prefect-port" in finding.remedy
        write_address(here.home, "prefect", f"http://127.0.0.1:{ports.prefect}")
        [finding] = look_at_ports(here, ports)
        assert finding.verdict is Verdict.OK and "serves our prefect" in finding.detail


def test_the_command_says_it_in_lines_and_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENAI_RAY_ADDRESS", NOWHERE)
    code, out, _ = call_genai(monkeypatch, capsys, "doctor")
    assert code == 1
    [line] = [line for line in out.splitlines() if NOWHERE in line]
    assert line.startswith("BAD  ray server ") and "  -> " in line
    code, out, _ = call_genai(monkeypatch, capsys, "doctor", "--json")
    told = json.loads(out)
    assert (code, told["good"]) == (1, False)
    [row] = [row for row in told["findings"] if row["name"] == "ray server"]
    assert (row["verdict"], set(row)) == ("bad", {"name", "verdict", "detail", "remedy"})


def test_settings_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GENAI_HEARTBEAT_SECONDS", "often")
    code, out, _ = call_genai(monkeypatch, capsys, "doctor")
    assert code == 1
    assert "GENAI_HEARTBEAT_SECONDS" in out
