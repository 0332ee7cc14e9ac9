"""Known vulnerabilities of the pinned libraries, by pip-audit; run it with the Python of an environment that has that: `make audit`.

    python .ci/audit.py constraints.txt [--ignored .ci/audit-ignored.txt] [--osv-url URL]

Exit 1: a vulnerability was found that is not ignored with a reason. Exit 0 with a line that begins with "audit skipped": the
database could not be reached, or knows none of the libraries, so nothing is said of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 900.0
"""For all libraries: one question each."""

UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "Server Error")
"""What pip-audit's error says where the network or the database is to blame."""


class Skipped(Exception):
    """Nothing could be found out; says why."""


def read_ignored(text: str) -> dict[str, str]:
    """Return the reason for each ignored vulnerability: a line is its id, then why it does no harm here.

    Raises:
        ValueError: a line without a reason.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    ignored = {name: reason.strip() for name, _, reason in (line.partition(" ") for line in lines)}
    if bare := [name for name, reason in ignored.items() if not reason]:
        raise ValueError(f"{bare[0]} is ignored without a reason. Write why behind it.")
    return ignored


def judge(report: Mapping[str, Any], ignored: Mapping[str, str]) -> tuple[bool, list[str]]:
    """Return whether a report of pip-audit's lets CI go on, and a line for each thing to be told.

    Raises:
        Skipped: no library was looked up.
    """
    asked = [each for each in report["dependencies"] if "vulns" in each]
    unknown = [each for each in report["dependencies"] if "vulns" not in each]
    if not asked:
        raise Skipped(
            f"none of {len(unknown)} libraries was looked up: {unknown[0]['skip_reason'] if unknown else 'none'}"
        )
    lines, met, good = [], set(), True
    for library in asked:
        for found in library["vulns"]:
            known = {found["id"], *found.get("aliases", [])} & set(ignored)
            met |= known
            good = good and bool(known)
            remedy = f"fixed in {', '.join(found['fix_versions'])}" if found["fix_versions"] else "no version fixes it"
            verdict = f"ignored: {ignored[min(known)]}" if known else remedy
            lines.append(f"{library['name']} {library['version']}: {found['id']}, {verdict}")
    lines += [f"{name} is ignored, but not found any more: take it out" for name in sorted(set(ignored) - met)]
    lines += [f"{each['name']} was not looked up: {each['skip_reason']}" for each in unknown]
    return good, [*lines, f"audited {len(asked)} libraries: {'good' if good else 'vulnerable'}"]


def ask(constraints: Path, osv_url: str = "") -> dict[str, Any]:
    """Return pip-audit's report on pinned libraries.

    Raises:
        Skipped: the database cannot be reached.
        RuntimeError: pip-audit failed otherwise; with the end of what it said.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(constraints), "--no-deps", "--disable-pip"]
    # OSV, not the index: a mirror that has no such data answers that there is no such library, which looks like good news
    command += ["--format", "json", "--vulnerability-service", "osv", "--progress-spinner", "off", "--timeout", "10"]
    command += ["--osv-url", osv_url] if osv_url else []
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise Skipped(f"no end after {TIMEOUT_SECONDS:.0f} s") from None
    if done.stdout.strip():
        report: dict[str, Any] = json.loads(done.stdout)
        return report
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    if away := [line for line in said if any(word in line for word in UNREACHABLE)]:
        raise Skipped(f"the database of vulnerabilities cannot be reached ({away[-1].strip()[:200]})")
    raise RuntimeError(f"pip-audit failed with {done.returncode}: {said[-1]}")


def main(arguments: list[str]) -> int:
    """Print what was found; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("constraints", type=Path)
    parser.add_argument("--ignored", type=Path, default=Path(__file__).with_name("audit-ignored.txt"))
    parser.add_argument("--osv-url", default="", help="another database than OSV's own")
    given = parser.parse_args(arguments)
    try:
        ignored = read_ignored(given.ignored.read_text())
        good, lines = judge(ask(given.constraints, given.osv_url), ignored)
    except Skipped as reason:
        print(f"audit skipped: {reason}")
        return 0
    except (RuntimeError, ValueError) as error:
        print(f"audit failed: {error}")
        return 1
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
