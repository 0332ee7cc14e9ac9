"""What the fault table stands on: a link that can be cut, and what is told of faults."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from tests.platform.fault_table import Outcome, says_wrong, shuffled, table
from tests.platform.faulty_stack import FAULTS, Fault
from tests.platform.links import Link


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that answers with what it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    link = Link(int(server.server_address[1]))
    yield link
    link.close()
    server.shutdown()
    server.server_close()


def ask(link: Link, what: str, seconds: float = 10.0) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{link.port}/{what}", timeout=seconds) as answer:
        return str(answer.read().decode())


def test_nothing_comes_through_a_cut_link_until_it_is_mended(link: Link) -> None:
    assert ask(link, "before") == "/before"
    answers: list[str] = []
    with link.cut():
        with pytest.raises(TimeoutError):
            ask(link, "impatient", seconds=0.3)
        patient = threading.Thread(target=lambda: answers.append(ask(link, "patient")))
        patient.start()
        patient.join(0.3)
        assert not answers
    patient.join(10)
    assert answers == ["/patient"]
    assert ask(link, "after") == "/after"


def test_every_fault_comes_once_before_any_comes_twice() -> None:
    order = shuffled("1")
    first, second = ([next(order) for _ in FAULTS] for _ in range(2))
    assert set(first) == set(second) == set(FAULTS) and first != second
    again = shuffled("1")
    assert [next(again) for _ in FAULTS] == first


def outcome(**changes: object) -> Outcome:
    facts = {
        "seed": "1/1",
        "commit": "0" * 40,
        "reference_seconds": 100.0,
        "faults": [
            {"target": "S3", "kind": "SIGKILL", "at": 5.0, "rerun": False},
            {"target": "Postgres", "kind": "SIGKILL", "at": 50.0, "rerun": True},
        ],
        "seconds": 160.0,
        "reruns": 1,
        "state": "Completed",
        "identical": True,
        "versions": 1,
        "verified": True,
        "history": True,
    }
    return Outcome(**{**facts, **changes})  # type: ignore[arg-type]


def test_the_table_counts_faults_and_reruns_and_names_what_was_not_kept() -> None:
    assert Fault("S3", "SIGKILL") in FAULTS
    good, bad = outcome(), outcome(seed="1/2", versions=2, identical=False, wrong="artifacts of tune: a where b was")
    text = table([vars(good), vars(bad)])
    assert "**4 faults in 2 runs; 1 of the runs kept all of that.**" in text
    assert "| Postgres | 2 (2) | 0 | 0 | 0 | 30 |" in text
    assert "| S3 | 2 (0) | 0 | 0 | 0 | 30 |" in text
    assert "| training worker | 0 | 0 | – | – |  |" in text
    assert "| 1 | all |" in text
    assert "**not identical; 2 versions; artifacts of tune: a where b was**" in text
    assert says_wrong(good) == ""
    for broken in ({"left": ["ray::RayTrainWorker"]}, {"verified": False}, {"history": False}, {"versions": 0}):
        assert not outcome(**broken).good and says_wrong(outcome(**broken))
