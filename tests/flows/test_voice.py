"""What a flow run's log says of waiting: once for each run that is waited for."""

from __future__ import annotations

import logging

import pytest

from flows import voice


def test_waiting_is_said_once_for_each_run_that_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(voice, "get_run_logger", lambda: logging.getLogger("voice"))
    one = voice.PrefectVoice()
    with caplog.at_level(logging.INFO, "voice"):
        for title, holder in [("pretrain", "run a"), ("pretrain", "run b"), ("finetune", "run b")]:
            if (title, holder) != ("pretrain", "run b"):
                one.hear({"type": "stage", "title": title})
            for _ in range(50):  # twice a second
                one.hear({"type": "waiting", "title": title, "holder": holder})
    waits = [record.getMessage() for record in caplog.records if "waiting" in record.getMessage()]
    assert waits == [
        "pretrain: another run is computing it (run a); waiting",
        "pretrain: another run is computing it (run b); waiting",
        "finetune: another run is computing it (run b); waiting",
    ]
