"""A job server that is away for a while, never answers, denies access, or knows no such job."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from genai_core.errors import ConfigError, InterruptedRunError, TransientError
from genai_core.launch import job_server
from genai_core.launch.job_server import JobServer
from tests.cli.fake_service import fake_service
from tests.platform.stack import free_ports

JOB = {"type": "SUBMISSION", "submission_id": "genai-1", "status": "RUNNING", "entrypoint": "sleep 1"}
PAGES = {"/api/version": {"ray_version": "2.60.0", "version": "4"}, "/api/jobs/genai-1": JOB}


def test_a_server_that_comes_back_is_waited_for_and_otherwise_it_is_said_at_once() -> None:
    [port] = free_ports(1)
    server = JobServer(f"http://127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(TransientError, match="does not answer"):
        server.ask("get_job_status", "genai-1")
    assert time.monotonic() - began < 5

    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(server.ask("get_job_status", "genai-1", seconds=60)))
    asking.start()
    time.sleep(2)
    with fake_service(PAGES, port=port):
        asking.join(30)
        assert answers == ["RUNNING"]
    with pytest.raises(TransientError, match="does not answer"):  # gone again, behind a client that was connected
        server.ask("get_job_status", "genai-1", seconds=1.5)
    with fake_service(PAGES, port=port):
        assert server.ask("get_job_status", "genai-1", seconds=60) == "RUNNING"


def test_what_it_does_not_know_is_none() -> None:
    with fake_service(PAGES) as address:
        assert JobServer(address).ask("get_job_status", "genai-2") is None


def test_one_that_takes_a_request_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "REQUEST_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        with pytest.raises(TransientError, match="does not answer"):
            JobServer(f"http://127.0.0.1:{deaf.getsockname()[1]}").ask("list_jobs", seconds=2)
        assert time.monotonic() - began < 30


def test_denied_access_is_a_mistake_to_mend_and_not_to_wait_for() -> None:
    with fake_service(PAGES, password="Bearer t0ken") as address, pytest.raises(ConfigError, match="RAY_AUTH_TOKEN"):
        JobServer(address).ask("list_jobs", seconds=60)


def test_who_waits_can_be_told_to_stop() -> None:
    [port] = free_ports(1)
    with pytest.raises(InterruptedRunError):
        JobServer(f"http://127.0.0.1:{port}").ask("list_jobs", seconds=60, should_stop=lambda: True)
