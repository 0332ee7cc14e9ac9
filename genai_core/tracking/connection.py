"""A connection to MLflow: the client, the experiment, and every failure of it as one of our errors.

Three kinds of address: `sqlite:///path` (no server; artifacts lie in a folder), another database URI, and `http(s)://`
of a server, which chooses where artifacts lie.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from genai_core.errors import ConfigError, DiskFullError, GenaiCoreError, StorageError, TransientError
from genai_core.tracking.database import make_database
from genai_core.tracking.quiet import open_mlflow
from genai_core.tracking.secrets import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

REMEDY = "Start it, or give another address with --mlflow URI (GENAI_TRACKING_URI)."
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SQLITE_MAGIC = b"SQLite format 3\0"

# what MLflow says no to for good; everything else may pass the next time
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_REFUSED = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "NOT_FOUND", "BAD_REQUEST"}


class Connection:
    """One tracking address and one experiment; nothing is opened before the first call.

    `artifact_root` (folder or URI) counts when there is no server; '' = beside the SQLite file. Changing it later moves
    nothing: an experiment keeps the place it was created with.
    """

    def __init__(self, uri: str, experiment: str = "genai", artifact_root: str | Path = "") -> None:
        self.uri = uri
        self.experiment = experiment
        # a server keeps the files where it was told to; a folder of ours would be one that other machines do not have
        served = uri.startswith(("http://", "https://"))
        self._artifact_root = "" if served else str(artifact_root) or _beside(uri)

    @property
    def address(self) -> str:
        """Return the address without credentials."""
        return shown(self.uri)

    @functools.cached_property
    def client(self) -> MlflowClient:
        """Return the MLflow client; tracking and registry are the same place."""
        open_mlflow()
        from mlflow import MlflowClient

        check_address(self.uri)
        with self.call("connect"):
            if self.uri.startswith("sqlite:"):
                make_database(_sqlite_path(self.uri), _beside(self.uri))
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @functools.cached_property
    def experiment_id(self) -> str:
        """Return the id of the experiment, which is created if there is none. Raises ConfigError if it was deleted."""
        with self.call(f"open experiment {self.experiment!r}"):
            found = self.client.get_experiment_by_name(self.experiment)
            if found is None:
                found = self._create_experiment()
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"MLflow experiment {self.experiment!r} at {self.address} was deleted. "
                "Restore it in MLflow, or choose another experiment."
            )
        return str(found.experiment_id)

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """Turn what MLflow, its database or the network raises into our errors.

        Raises: ConfigError (access denied), StorageError (MLflow refuses the request itself), DiskFullError,
        TransientError (anything else: worth another try later).
        """
        open_mlflow()
        import requests
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except GenaiCoreError:
            raise
        except MlflowException as error:
            reason = shown(str(error)).splitlines()[0][:500]
            message = f"MLflow at {self.address} could not {what}: {reason}"
            if error.error_code in _DENIED:
                raise ConfigError(f"{message}. Check user name and password (MLFLOW_TRACKING_USERNAME).") from None
            if error.error_code in _REFUSED:
                raise StorageError(message) from None
            raise TransientError(f"{message}. {REMEDY}") from None
        except (SQLAlchemyError, requests.RequestException, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DiskFullError(f"No space left where MLflow at {self.address} keeps its artifacts.") from error
            reason = shown(str(error)).splitlines()[0][:500] if str(error) else type(error).__name__
            raise TransientError(f"MLflow at {self.address} could not {what}: {reason}. {REMEDY}") from None

    def _create_experiment(self) -> Experiment:
        from mlflow.exceptions import MlflowException

        root = self._artifact_root
        location = (root if "://" in root else Path(root).resolve().as_uri()) if root else None
        try:
            self.client.create_experiment(self.experiment, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run made it just now
                raise
        made = self.client.get_experiment_by_name(self.experiment)
        assert made is not None
        return made


def _beside(uri: str) -> str:
    """Return where runs and models of an SQLite address keep their files: beside the database. '' = the server's."""
    if not uri.startswith("sqlite:"):
        return ""
    return (_sqlite_path(uri).resolve().parent / "mlartifacts").as_uri()


def check_reachable(uri: str, seconds: float = 30.0) -> None:
    """Return when MLflow answers at `uri`; try again until `seconds` are over.

    Raises:
        ConfigError: the address can never work: unknown scheme, a file that is no database, access denied.
        TransientError: nothing answered in time; names the address, without credentials.
    """
    check_address(uri)
    deadline = time.monotonic() + seconds
    pause = 0.25
    while True:
        try:
            _answer(uri, max(0.5, min(10.0, deadline - time.monotonic())))
            return
        except TransientError as error:
            if time.monotonic() + pause >= deadline:
                raise TransientError(
                    f"MLflow at {shown(uri)} did not answer within {seconds:g} s: {error}. {REMEDY}"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, 4.0)


def check_address(uri: str) -> None:
    """Refuse what cannot be an address, before MLflow retries it for a minute or makes a file of it."""
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    if scheme in {"http", "https"} | set(DATABASES):
        if not parts.hostname:
            raise ConfigError(f"MLflow address {shown(uri)!r} names no host. Write {scheme}://HOST:PORT.")
        return
    if scheme != "sqlite":
        raise ConfigError(
            f"MLflow address {shown(uri)!r} has an unknown scheme. Use sqlite:///FILE, http(s)://HOST:PORT or "
            "postgresql://HOST/DATABASE."
        )
    path = _sqlite_path(uri)
    if path.is_dir() or not path.name:
        raise ConfigError(f"MLflow address {shown(uri)!r} is a folder, not a file. Name a file in it.")
    if path.exists():
        with path.open("rb") as handle:
            magic = handle.read(len(SQLITE_MAGIC))
        if magic not in (b"", SQLITE_MAGIC):
            raise ConfigError(f"{path} is not an SQLite database. Give another file to sqlite:///FILE.")
    place = next(parent for parent in path.resolve().parents if parent.exists())
    if not os.access(path if path.exists() else place, os.W_OK):
        raise ConfigError(f"MLflow database {path} cannot be written. Make it writable, or give another address.")


def _sqlite_path(uri: str) -> Path:
    return Path(uri.partition("sqlite:///")[2].partition("?")[0])


def _answer(uri: str, timeout: float) -> None:
    """Ask for one experiment. Raises TransientError while nobody answers."""
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    if scheme == "sqlite":
        return
    port = parts.port or DATABASES.get(scheme) or (443 if scheme == "https" else 80)
    try:
        socket.create_connection((str(parts.hostname), port), timeout=timeout).close()
    except OSError as error:
        raise TransientError(str(error)) from None
    if scheme not in {"http", "https"}:
        return
    open_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=timeout,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise TransientError(shown(str(error)).splitlines()[0][:300]) from None
    if answer.status_code in (401, 403):
        raise ConfigError(
            f"MLflow at {shown(uri)} denies access (HTTP {answer.status_code}). Set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; a server checks its --allowed-hosts too."
        )
    if answer.status_code in (400, 404, 405):
        raise ConfigError(f"{shown(uri)} answers, but is no MLflow server (HTTP {answer.status_code}).")
    if answer.status_code != 200:
        raise TransientError(f"HTTP {answer.status_code}")
