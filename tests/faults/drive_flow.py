"""Run one flow of a recipe as `genai run` runs the lifecycle: same checks, same stop button, same exit codes.

    python drive_flow.py pretraining RECIPE.yaml REPORT.json

A part of the lifecycle registers no model, so where `genai run` would say "refused" it says "completed".
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from genai_core.cli import run as command
from genai_core.cli.main import complain
from genai_core.errors import GenaiCoreError
from genai_core.launch.quiet import silence


class PartialRun(command.Run):
    """A run of another flow than the lifecycle."""

    flow = ""

    def execute(self) -> None:
        """Run the flow."""
        import flows.lifecycle  # not earlier: Prefect reads its settings when it is imported

        flows.lifecycle.lifecycle = getattr(importlib.import_module(f"flows.{self.flow}"), self.flow)
        super().execute()
        self.status = "completed"


def main(flow: str, recipe: str, report: str) -> int:
    """Run the flow; return the exit code."""
    silence()
    PartialRun.flow = flow
    command.Run = PartialRun
    try:
        return command.run_recipe(recipe, [], Path(report), "", "", "", [])
    except GenaiCoreError as error:
        complain(str(error))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
