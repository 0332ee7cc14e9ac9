"""An installation of its own for a test, and the smallest mission in one, begun before the test is due."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

Ended = tuple["Home", int, dict[str, Any], str]
"""(installation, exit code, report, standard output) of a run."""


class Home:
    """One installation in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "GENAI_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "COLUMNS": "140"}
        self.report = folder / "report.json"

    def genai(self, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "genai_core.cli", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        self.report.unlink(missing_ok=True)
        done = self.genai("run", *arguments, "--report", str(self.report))
        return self.read(done.returncode, done.stdout, done.stderr)

    def read(self, code: int, out: str, err: str) -> tuple[int, dict[str, Any], str]:
        """Return how a run ended, what it reports and what it said."""
        assert "Traceback" not in out + err, out + err
        assert " | INFO " not in out + err, "Prefect has read its settings before they were there"
        assert self.report.exists(), out + err
        return code, json.loads(self.report.read_text()), out


class Mission:
    """The mission of the recipe `minute`: it takes minutes, and other tests can run beside it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="genai-mission-"))
        self._home = Home(self._folder)
        self._process: subprocess.Popen[str] | None = None
        self._ended: Ended | None = None

    def begin(self) -> None:
        """Start it, unless it was."""
        if self._process is None:
            # into files: nobody reads a pipe until it has ended
            with (self._folder / "out").open("w") as out, (self._folder / "err").open("w") as err:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "genai_core.cli", "run", "minute", "--report", str(self._home.report)],
                    env=self._home.environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    text=True,
                    start_new_session=True,
                )

    def result(self) -> Ended:
        """Wait for its end."""
        if self._ended is None:
            self.begin()
            assert self._process is not None
            code = self._process.wait(timeout=900)
            told = self._home.read(code, (self._folder / "out").read_text(), (self._folder / "err").read_text())
            self._ended = (self._home, *told)
        return self._ended

    def close(self) -> None:
        """Stop it if nobody has waited for it, and forget all that it made."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()  # as heard as Ctrl-C, which what runs in the background may ignore
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=60)
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
