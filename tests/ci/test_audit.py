"""What CI makes of pip-audit's report, and that an audit that could not be made says so."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci/audit.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit = load()


def report(*vulnerabilities: dict[str, Any]) -> dict[str, Any]:
    """Return a report as pip-audit 2.10 writes it: one library with vulnerabilities, one without."""
    return {
        "dependencies": [
            {"name": "leaky", "version": "1.0", "vulns": list(vulnerabilities)},
            {"name": "tight", "version": "2.0", "vulns": []},
        ],
        "fixes": [],
    }


HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": ["CVE-2026-0001"], "description": "..."}
UNFIXED = {"id": "GHSA-xxxx", "fix_versions": [], "aliases": [], "description": "..."}


def test_a_vulnerability_fails_and_is_told_with_its_remedy() -> None:
    assert audit.judge(report(), {}) == (True, ["audited 2 libraries: good"])
    good, lines = audit.judge(report(HOLE, UNFIXED), {})
    assert not good
    assert lines == [
        "leaky 1.0: PYSEC-2026-1, fixed in 1.1",
        "leaky 1.0: GHSA-xxxx, no version fixes it",
        "audited 2 libraries: vulnerable",
    ]


def test_one_that_is_ignored_by_any_of_its_names_passes_with_the_reason() -> None:
    ignored = audit.read_ignored("# a comment\n\nCVE-2026-0001  only with a server that we do not start\n")
    good, lines = audit.judge(report(HOLE), ignored)
    assert good and "leaky 1.0: PYSEC-2026-1, ignored: only with a server that we do not start" in lines
    assert not audit.judge(report(HOLE, UNFIXED), ignored)[0]
    good, lines = audit.judge(report(), ignored)
    assert good and "CVE-2026-0001 is ignored, but not found any more: take it out" in lines
    with pytest.raises(ValueError, match="CVE-2026-0002 is ignored without a reason"):
        audit.read_ignored("CVE-2026-0002\n")


def test_libraries_that_were_not_looked_up_are_no_good_news() -> None:
    missing = {"name": "odd", "skip_reason": "not found"}
    with pytest.raises(audit.Skipped, match="none of 1 libraries was looked up: not found"):
        audit.judge({"dependencies": [missing]}, {})
    mixed = report()
    mixed["dependencies"].append(missing)
    assert "odd was not looked up: not found" in audit.judge(mixed, {})[1]


def run(folder: Path, body: str, ignored: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script with a pip-audit of ours."""
    (folder / "pip_audit").mkdir()
    (folder / "pip_audit/__main__.py").write_text(body)
    (folder / "ignored.txt").write_text(ignored)
    command = [sys.executable, str(SCRIPT), str(ROOT / "constraints.txt"), "--ignored", str(folder / "ignored.txt")]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("error", ["ConnectionError: Failed to resolve the name", "HTTPError: 503 Server Error: ..."])
def test_without_a_database_it_is_skipped_and_says_so(error: str, tmp_path: Path) -> None:
    done = run(tmp_path, "import sys; sys.exit(" + repr(f"Traceback:\n{error}\nServiceError") + ")")
    assert done.returncode == 0
    assert done.stdout == f"audit skipped: the database of vulnerabilities cannot be reached ({error})\n"


def test_a_tool_that_fails_is_not_skipped(tmp_path: Path) -> None:
    done = run(tmp_path, "import sys; sys.exit('error: no such option')")
    assert (done.returncode, done.stdout) == (1, "audit failed: pip-audit failed with 1: error: no such option\n")


def test_a_report_with_a_vulnerability_fails_the_command(tmp_path: Path) -> None:
    """pip-audit itself ends with 1 then, and its report stands on its output."""
    body = f"import sys; print({json.dumps(json.dumps(report(HOLE)))}); sys.exit(1)"
    done = run(tmp_path, body)
    assert done.returncode == 1 and "PYSEC-2026-1" in done.stdout
    (tmp_path / "again").mkdir()
    done = run(tmp_path / "again", body, "PYSEC-2026-1 not reached from here")
    assert done.returncode == 0 and "ignored: not reached from here" in done.stdout


def test_ci_audits_and_its_list_has_reasons() -> None:
    assert "\nmake audit\n" in (ROOT / ".ci/run").read_text()
    audit.read_ignored((ROOT / ".ci/audit-ignored.txt").read_text())
