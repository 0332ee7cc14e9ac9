"""The MLflow server that `genai up`, `genai ui` and compose.yaml start: prepared here, then this process becomes it.

    python -m genai_core.tracking.server sqlite:///HOME/mlflow.db HOME 127.0.0.1 5000

Artifacts lie below the home, where clients on this machine read them; with MLFLOW_ARTIFACTS_DESTINATION in the environment
(`s3://bucket/mlflow`) they go through the server to there.

With MLFLOW_AUTH_ADMIN_PASSWORD in the environment it asks for names and passwords (MLflow's basic auth), and who is not
allowed anything by name is allowed nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from genai_core.errors import ConfigError

PASSWORD, SECRET = "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"
ADMIN = "admin"


def asks_for_passwords(environment: Mapping[str, str]) -> bool:
    """Return whether a server that is started now asks for passwords. Raises ConfigError where it then cannot start."""
    if not environment.get(PASSWORD):
        return False
    if not environment.get(SECRET):
        raise ConfigError(f"{PASSWORD} is set, but MLflow's basic auth needs {SECRET} too: any long random text.")
    if find_spec("flask_wtf") is None:
        raise ConfigError("MLflow's basic auth needs Flask-WTF. Install it: pip install 'genai[auth]'")
    return True


def client_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which our own processes are let in by such a server: those of the admin, if none are set."""
    if not environment.get(PASSWORD) or environment.get("MLFLOW_TRACKING_TOKEN"):
        return {}
    return {
        "MLFLOW_TRACKING_USERNAME": environment.get("MLFLOW_TRACKING_USERNAME")
        or environment.get("MLFLOW_AUTH_ADMIN_USERNAME", ADMIN),
        "MLFLOW_TRACKING_PASSWORD": environment.get("MLFLOW_TRACKING_PASSWORD") or environment[PASSWORD],
    }


def write_auth_config(home: Path, uri: str = "") -> Path:
    """Write MLflow's file of its basic auth below the home: nothing is allowed by default.

    Users are kept in the server's own database where that is a server's, too; else in a file below the home.
    """
    path = home / "services" / "mlflow-auth.ini"
    users = uri if uri and not uri.startswith("sqlite") else f"sqlite:///{home / 'mlflow-users.db'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.chmod(0o600)  # the address of a database holds its password
    path.write_text(
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = {users.replace('%', '%%')}\n"
        f"admin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n"  # else every request costs a slow hash
    )
    return path


def become_server(uri: str, home: Path, host: str, port: int) -> None:
    """Make the database and our experiment, if they are local and not there; then replace this process by the server."""
    from genai_core.tracking.runs import Tracker

    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that nobody uses
    if not environment.get("MLFLOW_ARTIFACTS_DESTINATION"):
        artifacts = home / "mlartifacts"
        Tracker(uri, "genai", artifacts).experiment_id  # noqa: B018
        command += ["--default-artifact-root", str(artifacts)]
    if asks_for_passwords(environment):
        command += ["--app-name", "basic-auth"]
        environment.setdefault("MLFLOW_AUTH_CONFIG_PATH", str(write_auth_config(home, uri)))
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    become_server(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
