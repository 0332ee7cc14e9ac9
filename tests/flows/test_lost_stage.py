"""A stage that the machine has failed is told to the screen at each try; one that cannot succeed is a row of the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import Failed

from genai_core.config.base import Config
from genai_core.config.settings import read_settings
from genai_core.errors import ConfigError, DiskFullError, InterruptedRunError, TransientError
from genai_core.stages.registry import STAGES
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.open import open_store
from genai_core.storage.owner import this_process
from tasks.session import StageRow, Stopwatch
from tasks.stage import RETRY, _compute, only_if_transient


def heard(home: Path, error: Exception) -> tuple[list[dict[str, Any]], list[StageRow], bool]:
    """Return the events and rows of a stage whose job ends with an error, and whether Prefect may try it again."""
    settings = read_settings(home=home)
    objects = open_store(settings.storage_uri, settings)
    claim = acquire(objects, "k" * 64, this_process("test"), stale_seconds=20.0)
    assert isinstance(claim, Claim)
    events: list[dict[str, Any]] = []
    rows: list[StageRow] = []

    def fail(*_: Any, **__: Any) -> None:
        raise error

    session: Any = SimpleNamespace(
        settings=settings,
        launcher=SimpleNamespace(warm_up=lambda: None, run=fail),
        compute={},
        experiment="genai",
        parent_run_id=lambda: "",
        tags={},
        on_event=events.append,
        should_stop=lambda: False,
        add=rows.append,
    )
    with pytest.raises(type(error)):
        _compute(session, STAGES["augment"], "augment", "corpus", Config(), {}, claim, Stopwatch())
    again = acquire(objects, "k" * 64, this_process("next"), stale_seconds=20.0, wait=False)
    assert isinstance(again, Claim), "its claim is given up at once"
    return events, rows, only_if_transient(None, None, Failed(data=error))


def test_what_a_machine_caused_is_told_and_tried_again(tmp_path: Path) -> None:
    events, rows, again = heard(tmp_path, TransientError("The Ray job server does not answer."))
    assert events == [{"type": "lost", "title": "augment", "reason": "The Ray job server does not answer."}]
    assert (rows, again) == ([], True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("no"), "failed"),
        (DiskFullError("no space left"), "failed"),
        (InterruptedRunError("stopped"), "interrupted"),
    ],
)
def test_what_would_end_the_same_way_is_a_row(tmp_path: Path, error: Exception, status: str) -> None:
    events, rows, again = heard(tmp_path, error)
    assert [(row.status, row.reasons) for row in rows] == [(status, (str(error),))]
    assert (events, again) == ([], False)


def test_the_tries_outlast_a_node_that_is_away_for_twenty_seconds() -> None:
    assert len(RETRY["retry_delay_seconds"]) == RETRY["retries"]
    assert RETRY["retry_delay_seconds"][0] <= 1 and sum(RETRY["retry_delay_seconds"]) > 20
