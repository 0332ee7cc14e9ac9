"""The Ray that a job runs on: joined where the job was submitted to one, else started here and owned by this process."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from pathlib import Path

from genai_core.launch.quiet import silence

LOOK_SECONDS = 60.0
OBJECT_STORE_BYTES = 200 * 1024 * 1024


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def ray_cpus() -> int:
    """Return how many logical CPUs a Ray of ours counts on this machine: two more than there are.

    What a worker uses is set by its torch threads, and what Ray counts must never keep a shard worker waiting for an idle
    training controller.
    """
    return cores() + 2


def connect_ray(address: str = "local") -> None:
    """Start a local Ray, or join the cluster at `address`. Does nothing when connected already."""
    silence()
    import ray
    from ray._private import ray_constants

    if ray.is_initialized():
        return
    if address == "local":
        # Ray replaces a loopback address by the machine's own unless it believes that it must stay on this machine, as
        # on a laptop's operating system: nothing of a local Ray shall listen to the network.
        ray_constants.ENABLE_RAY_CLUSTER = False
        # Ray Train would start an actor that watches for nodes being taken away: here there is one, and it is this one
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        name_our_ray()
        ray.init(
            address="local",
            num_cpus=ray_cpus(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    else:
        ray.init(
            address=address,
            runtime_env={"env_vars": {"RAY_ADDRESS": named}} if (named := named_address(address)) else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def named_address(address: str) -> str:
    """Return the address that a cluster's own processes shall know it by, '' where only Ray can find it.

    A job's driver is told it, its actors are not: Ray Train's helper that watches over a training's controller takes the
    one in a file of the machine's temporary folder, which may be another Ray's, or one that has ended. Each training then
    took twelve seconds more to end, and one whose controller the other Ray did not know could be ended in its midst.
    """
    return os.environ.get("RAY_ADDRESS", "") if address == "auto" else address


def nodes_without(folder: Path) -> list[str]:
    """Return the names of the cluster's nodes that run workers and do not see a folder of this one."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # a file in it: a folder of that name may have been made there, too
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-") as mark:
        asked = {}
        for node in ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU", 0):
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                look = ray.remote(os.path.exists).options(num_cpus=0, scheduling_strategy=there)
                asked[look.remote(mark.name)] = node["NodeManagerHostname"]
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
        return sorted(asked[answer] for answer in done if not ray.get(answer))


def name_our_ray() -> None:
    """Give the Ray that is about to start a port, and tell it to all its processes.

    Ray Train's helpers look for "the" Ray of a machine. With two of them they may ask the other one for their training
    controller, do not find it there, and end the training ("placement group was removed").
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{port}"


def disconnect_ray() -> None:
    """Leave the cluster; a local one stops."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
        if os.environ.pop("RAY_GCS_SERVER_PORT", ""):
            os.environ.pop("RAY_ADDRESS", None)
