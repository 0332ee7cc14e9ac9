"""The one place where MLflow is imported: silent, patient for seconds rather than minutes, and phoning nobody.

By its own defaults MLflow retries a lost server for about four minutes a call, reports usage, and prints run addresses
between our lines. A value that the user has set in the environment is left alone.
"""

from __future__ import annotations

import logging
import os
import threading
from types import ModuleType

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # a call that fails is repeated by the shipper, from a file; inside MLflow it would only block
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Environment of every process that talks to MLflow; also for servers started beside us."""


_importing = threading.Lock()


def open_mlflow() -> ModuleType:
    """Return the `mlflow` package, imported with our settings. Called before anything is imported from it.

    One thread imports, the others wait: shippers, the outbox and the flow itself begin at the same moment, MLflow's
    modules import each other in circles, and Python lets a circle through between two threads: unfinished modules.
    """
    with _importing:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        import mlflow

    # migrations of a new database are told at INFO, one line each
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow
