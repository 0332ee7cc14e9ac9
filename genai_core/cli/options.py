"""Command line options into settings; set in the environment too, so that every child process sees the same."""

from __future__ import annotations

import os

from genai_core.config.settings import Settings, read_settings


def settings_of(storage: str = "", mlflow: str = "", ray: str = "") -> Settings:
    """Return the settings with the given addresses over the environment's. Raises ConfigError."""
    for name, value in (("STORAGE_URI", storage), ("TRACKING_URI", mlflow), ("RAY_ADDRESS", ray)):
        if value:
            os.environ[f"GENAI_{name}"] = value
    settings = read_settings()
    if not os.environ.get("GENAI_TRACKING_URI"):
        from genai_core.cli.services import live_mlflow

        served = live_mlflow(settings.home)
        if served:  # `genai ui` holds the same SQLite: use its server instead of opening the file twice
            os.environ["GENAI_TRACKING_URI"] = served
            settings = read_settings()
    return settings
