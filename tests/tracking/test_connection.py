"""MLflow away, wrong or forbidden at the start: the right error, in time, with the address and without credentials."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from genai_core.errors import ConfigError, TransientError
from genai_core.tracking.connection import Connection, check_reachable

pytestmark = pytest.mark.usefixtures("migrated")  # MLflow is imported, so that what is timed is the waiting


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server() -> Iterator[Callable[[list[int]], str]]:
    """Return the address of a server that gives these answers, the last one for ever."""
    running: list[HTTPServer] = []

    def serve(codes: list[int]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code = codes.pop(0) if len(codes) > 1 else codes[0]
                self.send_response(code)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        running.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield serve
    for one in running:
        one.shutdown()
        one.server_close()


def test_a_refused_port_is_told_within_the_deadline() -> None:
    port = free_port()
    began = time.monotonic()
    with pytest.raises(TransientError, match=rf"http://127.0.0.1:{port} did not answer within 1.5 s") as told:
        check_reachable(f"http://bob:hunter2@127.0.0.1:{port}", seconds=1.5)
    assert 0.7 < time.monotonic() - began < 2.5  # it did try again
    assert "hunter2" not in str(told.value)
    assert told.value.exit_code == 1


def test_a_database_server_that_is_down_is_not_retried_by_mlflow_for_minutes() -> None:
    with pytest.raises(TransientError, match=r"postgresql://127.0.0.1:.*/mlflow did not answer") as told:
        check_reachable(f"postgresql://u:hunter2@127.0.0.1:{free_port()}/mlflow", seconds=0.5)
    assert "hunter2" not in str(told.value)


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(TransientError, match="did not answer"):
            check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=1.5)
        assert time.monotonic() - began < 6.0


def test_a_server_that_comes_up_late_is_waited_for(server: Callable[[list[int]], str]) -> None:
    check_reachable(server([503, 503, 200]), seconds=10)


@pytest.mark.parametrize(("code", "message"), [(401, "denies access"), (403, "denies access"), (404, "is no MLflow")])
def test_a_server_that_says_no_is_the_users_mistake(
    server: Callable[[list[int]], str], code: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        check_reachable(server([code]), seconds=10)
    assert told.value.exit_code == 2


def test_addresses_that_cannot_be(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"not a database at all")
    for uri, message in (
        ("ftp://x/y", "unknown scheme"),
        ("mlruns", "unknown scheme"),
        ("http://", "names no host"),
        (f"sqlite:///{tmp_path}", "is a folder"),
        (f"sqlite:///{garbage}", "is not an SQLite database"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_reachable(uri, seconds=1)
        with pytest.raises(ConfigError, match=message):
            _ = Connection(uri).client
    assert garbage.read_bytes() == b"not a database at all"


def test_sqlite_is_there_or_can_be_made(uri: str, tmp_path: Path) -> None:
    check_reachable(uri, seconds=1)
    check_reachable(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}", seconds=1)
    assert not (tmp_path / "new").exists()


def test_a_lost_server_costs_a_call_seconds_not_minutes() -> None:
    connection = Connection(f"http://bob:hunter2@127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(TransientError, match="could not open experiment") as told:
        _ = connection.experiment_id
    assert time.monotonic() - began < 8.0
    assert "hunter2" not in str(told.value)
