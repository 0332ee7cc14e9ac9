"""Samples of a busy machine in a stage's journal."""

from __future__ import annotations

import json
import time
from pathlib import Path

from genai_core.tracking.journal import Journal
from genai_core.tracking.system_metrics import SystemMetrics, read_gpus


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_samples_go_on_where_an_earlier_attempt_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for attempt in (1, 2):
        journal = Journal(path)
        system = SystemMetrics(journal, every_seconds=0.02).start()
        deadline = time.monotonic() + 20
        while len(path.read_text().splitlines()) < 3 * attempt:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        system.stop()
        written = path.stat().st_size
        journal.close()
        time.sleep(0.1)
        assert path.stat().st_size == written, "nothing comes after its end"
    assert steps(path) == list(range(len(steps(path))))
    [*_, last] = path.read_text().splitlines()
    sample = json.loads(last)["m"]
    assert 0 < sample["system/system_memory_usage_percentage"] < 100
    assert 0 <= sample["system/cpu_utilization_percentage"] <= 100


def test_what_nvidias_program_says_of_two_gpus() -> None:
    said = "97, 40960, 81920\n0, 12, [N/A]\n5, 1000, 2000\n"
    assert read_gpus(said) == {
        "gpu_0_utilization_percentage": 97.0,
        "gpu_0_memory_usage_megabytes": 42949.7,
        "gpu_0_memory_usage_percentage": 50.0,
        "gpu_2_utilization_percentage": 5.0,
        "gpu_2_memory_usage_megabytes": 1048.6,
        "gpu_2_memory_usage_percentage": 50.0,
    }
