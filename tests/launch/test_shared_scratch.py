"""Nodes that do not share the folder in which a stage is computed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ray_nodes import ray_nodes, start_training
from worker_case import arguments, make_corpus

pytestmark = [
    pytest.mark.platform,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a process a file system of its own"),
]


def test_a_node_that_does_not_see_the_folder_of_a_stage_is_told_of(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    alone = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {shared} && exec "$@"', "sh"]
    with ray_nodes(tmp_path, around_node=alone) as (address, services):
        make_corpus(shared / "corpus")
        given = arguments(shared / "corpus", shared / "work")
        (tmp_path / "given.json").write_text(json.dumps(given))
        driver = start_training(tmp_path, services, address, most=2, least=0)
        assert driver.process is not None
        assert driver.process.wait(300) == 1
        print(driver.said())
        assert "GENAI_SCRATCH" in driver.said()
