"""`genai doctor`: is this installation able to run, and what to do if not. Things are looked at side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.text import Text

from genai_core.cli.doctor_machine import look_at_disks, look_at_machine, look_at_ports
from genai_core.cli.doctor_services import look_at_mlflow, look_at_prefect, look_at_ray, look_at_store
from genai_core.cli.findings import Finding, Verdict, judge
from genai_core.config.settings import Settings, read_settings
from genai_core.errors import GenaiCoreError

MARKS = {Verdict.OK: ("ok  ", "green"), Verdict.NOTE: ("note", "yellow"), Verdict.BAD: ("BAD ", "bold red")}


def examine(as_json: bool = False, job: bool = False) -> int:
    """Print one line for each thing looked at; return 1 if something would keep a run from working."""
    findings = collect(job)
    bad = sum(finding.verdict is Verdict.BAD for finding in findings)
    if as_json:
        print(json.dumps({"good": not bad, "findings": [finding.to_json() for finding in findings]}, indent=1))
        return 1 if bad else 0
    console = Console(highlight=False)
    for finding in findings:
        mark, style = MARKS[finding.verdict]
        remedy = f"  -> {finding.remedy}" if finding.remedy else ""
        line = Text.assemble((mark, style), f" {finding.name:<19}", finding.detail, (remedy, "bold"))
        console.print(line, soft_wrap=not console.is_terminal)
    console.print("All good." if not bad else f"{bad} to mend.")
    return 1 if bad else 0


def collect(job: bool = False) -> list[Finding]:
    """Return all findings, always in the same order."""
    machine = list(look_at_machine())
    try:
        settings = read_settings()
        settings.home.mkdir(parents=True, exist_ok=True)
    except (GenaiCoreError, OSError) as error:
        return [*machine, judge(False, "settings", str(error), "correct the GENAI_* variables")]
    looks: list[Callable[[Settings], Iterable[Finding]]] = [
        *(look_at_disks, look_at_ports, look_at_store, look_at_prefect, look_at_mlflow),
        lambda settings: look_at_ray(settings, job),
    ]
    with ThreadPoolExecutor(len(looks)) as pool:
        found = pool.map(lambda look: list(look(settings)), looks)
        return [*machine, *(finding for group in found for finding in group)]
