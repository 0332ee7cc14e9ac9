"""Calling `genai` in this process, as its test files do."""

from __future__ import annotations

import sys

import pytest

from genai_core.cli.main import main


def call_genai(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Return the exit code, standard output, and standard error in one line."""
    monkeypatch.setattr(sys, "argv", ["genai", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    told = capsys.readouterr()
    return int(done.value.code or 0), told.out, " ".join(told.err.split())
