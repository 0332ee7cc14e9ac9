"""`python -m genai_core.stages host FD PARENT` (embedded) or `... run JOB_URI` (a job of the Ray Jobs API)."""

from __future__ import annotations

import sys

USAGE = "usage: python -m genai_core.stages host EVENTS_FD PARENT_PID | run SUBMISSION_ID"


def main(arguments: list[str]) -> int:
    """Dispatch; return the exit code."""
    match arguments:
        case ["host", events_fd, parent]:
            from genai_core.stages.host import host_main

            host_main(int(events_fd), int(parent))
            return 0
        case ["run", submission_id]:
            from genai_core.stages.submitted import run_submitted

            return run_submitted(submission_id)
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
