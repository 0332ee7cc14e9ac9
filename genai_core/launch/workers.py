"""A stage's workers on Ray: a Ray Train group for training, a pool of actors for shards of rows."""

from __future__ import annotations

import importlib
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from genai_core import errors
from genai_core.errors import ConfigError, GenaiCoreError, StageFailedError, TransientError
from genai_core.launch.cluster import connect_ray, nodes_without
from genai_core.launch.outcome import (
    OUTCOME,
    first_line,
    load,
    make_room_for_outcome,
    name_of,
    raise_outcome,
    run_on_worker,
)
from genai_core.launch.shards import ShardFolder
from genai_core.launch.standing import StandingWorker
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

ACTOR_CPUS = 0.5
RESIZE_SECONDS = 60.0
"""How often an elastic group asks whether there is room for more workers. To take them in costs the steps since the last checkpoint."""

ELASTIC_START_SECONDS = 10.0


class RayWorkers:
    """The `Workers` protocol on Ray. What it starts lives as long as it: shard actors, their models loaded, and on a
    machine's own Ray a training worker."""

    def __init__(self, address: str = "local") -> None:
        self._address = address
        self._actors: list[Any] = []
        self._shape: tuple[int, int] = (0, 0)
        self._standing: StandingWorker | None = None
        self.workspace: Workspace
        self.journal: Journal
        self.check: Callable[[], None]
        self.run_name = "stage"
        self.max_failures = 3
        self._lock = threading.Lock()

    def serve(
        self, workspace: Workspace, journal: Journal, check: Callable[[], None], *, run_name: str, max_failures: int
    ) -> RayWorkers:
        """Turn to another stage; return this object."""
        self.workspace, self.journal, self.check = workspace, journal, check
        self.run_name, self.max_failures = run_name, max_failures
        return self

    def train(
        self,
        function: Callable[[dict[str, Any]], None],
        arguments: dict[str, Any],
        *,
        world_size: int,
        threads: int,
        min_workers: int = 0,
    ) -> None:
        """Run `function(arguments)` on a Ray Train group. Lost workers are replaced, then the function resumes itself.

        With `min_workers` a group of whatever is left goes on, down to so many; it grows again when there is more.
        """
        connect_ray(self._address)
        import ray
        import ray.train
        from ray.exceptions import RayActorError
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        folder = self.workspace.path / "train"
        folder.mkdir(parents=True, exist_ok=True)
        make_room_for_outcome(folder)
        elastic = 0 < min_workers < world_size
        standing = self.prepare() if world_size == 1 else None
        if standing is not None:
            self._make_room(0)
            standing.train(name_of(function), {**arguments, "threads": threads}, folder, self.max_failures)
            self.check()
            return
        self._let_standing_go()
        self._make_room(world_size)
        use_gpu = int(ray.cluster_resources().get("GPU", 0)) >= (min_workers if elastic else world_size)
        if elastic:
            # the first try after a loss asks for what is lost: it must not wait as long as a cluster may take to grow
            os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(ELASTIC_START_SECONDS)
        settings = {
            "function": name_of(function),
            "arguments": {**arguments, "threads": threads},
            "folder": str(folder),
        }
        rt: Any = ray.train  # its classes are swapped at import for Ray Train V2's, which a type checker does not see
        common: dict[str, Any] = {
            "train_loop_config": settings,
            "scaling_config": rt.ScalingConfig(
                num_workers=(min_workers, world_size) if elastic else world_size,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": 1},
                elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            ),
            "run_config": rt.RunConfig(
                name=self.run_name,
                storage_path=str(self.workspace.path / "ray"),
                failure_config=rt.FailureConfig(max_failures=self.max_failures, controller_failure_limit=3),
                logging_config=rt.LoggingConfig(log_level="ERROR"),
            ),
        }
        if world_size == 1:
            trainer: Any = DataParallelTrainer(run_on_worker, **common)  # no process group to wait for
        else:
            backend = "nccl" if use_gpu else "gloo"
            trainer = TorchTrainer(run_on_worker, torch_config=TorchConfig(backend=backend, timeout_s=300), **common)
        try:
            trainer.fit()
        except (rt.ControllerError, rt.TrainingFailedError, RayActorError) as error:
            self._blame_unshared_folder()
            if isinstance(error, rt.ControllerError):
                # no group could be started, or Ray itself failed: not the training's fault
                raise TransientError(f"Ray could not run the training group: {first_line(error)}") from error
            if isinstance(error, RayActorError):
                raise TransientError(f"Ray's training controller died: {first_line(error)}") from error
            raise StageFailedError(f"Training failed on its workers: {first_line(error)}") from error
        if not (folder / OUTCOME).exists():
            self._blame_unshared_folder()
        raise_outcome(folder)
        self.check()

    def prepare(self, imports: Sequence[str] = ()) -> StandingWorker | None:
        """Return the worker that stands ready for trainings of one worker, started if there is none.

        On a machine's own Ray only: a cluster's CPUs are not to be held between trainings, nor is a GPU, which the shard
        actors want meanwhile.
        """
        import ray

        if self._address != "local" or ray.cluster_resources().get("GPU", 0):
            return None
        with self._lock:
            if self._standing is None or not self._standing.lives:
                self._let_standing_go()
                self._standing = StandingWorker(imports)
            return self._standing

    def map_shards(
        self,
        function: Callable[[dict[str, Any], list[Any]], list[Any]],
        arguments: dict[str, Any],
        rows: Sequence[Any],
        *,
        name: str,
        shard_rows: int,
        workers: int,
        threads: int,
    ) -> list[Any]:
        """Run the unfinished shards on a pool of actors; return the results of all, in row order."""
        shards = ShardFolder(self.workspace, name, rows, shard_rows)
        waiting = list(shards.missing())
        if waiting:
            self._run_shards(
                shards, waiting, name_of(function), {**arguments, "threads": threads}, workers, len(rows), name
            )
        return shards.results()

    def _blame_unshared_folder(self) -> None:
        """Say so if what failed is that nodes have not the same folders: whatever failed, it then comes of that.

        Raises:
            ConfigError: naming these nodes.
        """
        missing = nodes_without(self.workspace.path) if self._address != "local" else []
        if missing:
            raise ConfigError(
                f"{len(missing)} of the cluster's nodes do not see {self.workspace.path}, where this stage is computed: "
                f"{', '.join(missing[:4])}. Let GENAI_SCRATCH (or a store that is a folder) lie, under the same path, in a folder "
                "that all nodes share, such as one of NFS."
            )

    def _make_room(self, world_size: int) -> None:
        """Let the shard actors drop their models before training; where CPUs are counted, end them.

        A local Ray counts two CPUs more than there are: an idle actor keeps nobody waiting there, and its imports are
        paid for. It lives until training needs what it holds.
        """
        import ray
        from ray.exceptions import RayActorError

        if self._address != "local" or world_size + ACTOR_CPUS * len(self._actors) > ray.cluster_resources()["CPU"] - 1:
            self.release()
        for actor in list(self._actors):
            try:
                ray.get(actor.forget.remote())
            except RayActorError:
                self._actors.remove(actor)

    def release(self) -> None:
        """Stop the shard actors."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._shape = [], (0, 0)

    def close(self) -> None:
        """Stop all that was started."""
        self.release()
        self._let_standing_go()

    def _let_standing_go(self) -> None:
        """End the training worker, whose CPU another group may need."""
        if self._standing is not None:
            self._standing.end()
            self._standing = None

    def _run_shards(
        self,
        shards: ShardFolder,
        waiting: list[tuple[int, Sequence[Any]]],
        function: str,
        arguments: dict[str, Any],
        workers: int,
        total_rows: int,
        name: str,
    ) -> None:
        connect_ray(self._address)
        import ray
        from ray.exceptions import RayActorError

        pool = self._pool(min(workers, len(waiting)), int(arguments["threads"]))
        done = total_rows - sum(len(rows) for _, rows in waiting)
        busy: dict[Any, tuple[Any, int, Sequence[Any]]] = {}
        failures = 0
        queue = list(reversed(waiting))
        idle = list(pool)
        while queue or busy:
            self.check()
            while queue and idle:
                index, rows = queue.pop()
                actor = idle.pop()
                busy[actor.run.remote(function, arguments, list(rows))] = (actor, index, rows)
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=0.5)
            for future in ready:
                actor, index, rows = busy.pop(future)
                try:
                    result = ray.get(future)
                except RayActorError as error:
                    failures += 1
                    if failures > self.max_failures:
                        raise StageFailedError(
                            f"{failures} workers were lost while making shards of {name!r}: {first_line(error)}"
                        ) from error
                    self.journal.event("a shard worker was lost and is replaced", shard=index, part=name)
                    queue.append((index, rows))
                    idle.append(self._replace(actor))
                    continue
                if "error" in result:
                    self._blame_unshared_folder()
                    kind = getattr(errors, result["kind"], StageFailedError)
                    raise kind(result["error"])
                shards.finish(index, result["rows"])
                idle.append(actor)
                done += len(rows)
                self.journal.progress(done, total_rows, "rows", part=name)

    def _pool(self, workers: int, threads: int) -> list[Any]:
        if self._shape[1] != threads:
            self.release()
        while len(self._actors) < workers:
            self._actors.append(start_actor())
        self._shape = (len(self._actors), threads)
        return self._actors[:workers]

    def _replace(self, lost: Any) -> Any:
        fresh = start_actor()
        self._actors[self._actors.index(lost)] = fresh
        return fresh


class ShardActor:
    """One process that runs shards; modules and models stay loaded between them."""

    def __init__(self) -> None:
        self._modules: set[str] = set()

    def forget(self) -> None:
        """Let the modules that ran shards drop what they keep, where they keep anything: models."""
        for module in self._modules:
            drop = getattr(importlib.import_module(module), "forget", None)
            if drop is not None:
                drop()

    def run(self, function: str, arguments: dict[str, Any], rows: list[Any]) -> dict[str, Any]:
        """Return {"rows": results}, or {"error", "kind"} for an error that a retry cannot mend."""
        self._modules.add(function.partition(":")[0])
        try:
            return {"rows": load(function)(arguments, rows)}
        except GenaiCoreError as error:
            return {"error": str(error), "kind": type(error).__name__}
        except Exception:  # the driver has no use for a pickled foreign exception
            return {"error": traceback.format_exc(limit=6), "kind": "StageFailedError"}


def start_actor() -> Any:
    """Start a shard worker process; the function that it runs sets its threads."""
    import ray

    return ray.remote(ShardActor).options(num_cpus=ACTOR_CPUS).remote()
