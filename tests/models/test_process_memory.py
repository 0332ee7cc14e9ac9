"""What is freed is used again: counted in page faults, in a process of its own, because malloc is told for good."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKS = """
import resource, sys
import torch
from genai_core.models.process_memory import keep_freed_memory, return_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1])

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
for _ in range(10):
    torch.ones(16 << 20)  # 64 MB, 16,384 pages
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 << 20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = resident()
return_freed_memory()
print(kept, faults, held - resident())
"""


def run(what: str) -> tuple[str, int, int]:
    done = subprocess.run([sys.executable, "-c", BLOCKS, what], capture_output=True, text=True, check=True)
    kept, faults, returned = done.stdout.split()
    return kept, int(faults), int(returned)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc of glibc")
def test_freed_blocks_are_used_again_and_given_back_when_asked() -> None:
    _, usual, _ = run("usual")
    kept, faults, returned = run("keep")
    if kept != "True":
        pytest.skip("this system's malloc is not glibc's")
    assert usual > 100_000 and faults < 1_000
    assert returned > 15_000, "64 MB in pages"
