"""Environment that every process of ours sets before a foreign library is imported: none phones home, chats, or spins in vain."""

from __future__ import annotations

import os

SILENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # a local Ray on loopback; a cluster's deployment sets "token" itself
    "RAY_COLOR_PREFIX": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "ALEMBIC_LOG_LEVEL": "ERROR",
    # How long a thread of torch's waits awake for the others, in turns of a loop; OpenMP's own 300,000 are as fast on an idle
    # machine. Where one core is busy with something else, a Ray worker of low priority then waits awake for a thread that it
    # keeps from running: 124 tokens/s instead of 790 (docs/results/speed.md).
    "GOMP_SPINCOUNT": "10000",
}


def silence() -> None:
    """Set the variables that the user has not set."""
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
