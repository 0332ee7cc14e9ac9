"""Where this installation keeps and finds things: `GENAI_*` environment variables, never part of a recipe or a key.

GENAI_STORAGE_URI=s3://team/genai GENAI_S3_ENDPOINT_URL=http://s3.local:8333 genai run quickstart
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from genai_core.errors import ConfigError


class Settings(BaseSettings):
    """One installation. Empty addresses are filled in from `home`, so what is read here is always usable."""

    model_config = SettingsConfigDict(
        env_prefix="GENAI_",
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    home: Path = Field(default=Path(".genai"), description="Folder of everything local; made absolute.")
    storage_uri: str = Field(default="", description="Artifact store: a folder or s3://bucket/prefix; '' = home/store.")
    tracking_uri: str = Field(default="", description="MLflow; '' = SQLite in home.")
    scratch: Path = Field(default=Path(), description="Local folder of caches and mirrors; '' = home/scratch.")
    ray_address: str = Field(default="", description="Address of a Ray cluster's job server; '' = a local Ray.")
    s3_endpoint_url: str = Field(default="", description="S3 server that is not AWS, such as http://127.0.0.1:8333.")
    s3_access_key: SecretStr | None = Field(default=None, description="S3 access key; none = AWS's own chain.")
    s3_secret_key: SecretStr | None = Field(default=None, description="S3 secret key.")
    s3_region: str = Field(default="", description="S3 region; '' = us-east-1 or AWS's own configuration.")
    s3_encryption: Literal["", "AES256", "aws:kms"] = Field(
        default="",
        description="Server-side encryption that is asked for each object; '' = what the bucket does by itself.",
    )
    s3_kms_key: str = Field(default="", description="Key of KMS for 'aws:kms'; '' = the account's own for S3.")
    stale_claim_seconds: PositiveFloat = Field(
        default=20.0, description="A claim without a heartbeat for so many seconds is taken over."
    )
    heartbeat_seconds: PositiveFloat = Field(default=2.0, description="Seconds between two heartbeats of a claim.")

    @field_validator("s3_kms_key")
    @classmethod
    def _key_for_kms(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("s3_encryption") != "aws:kms":
            raise ValueError("is a key of KMS: set GENAI_S3_ENCRYPTION=aws:kms, too, or leave it out")
        return value

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("storage_uri")
    @classmethod
    def _default_store(cls, value: str, info: ValidationInfo) -> str:
        return value or str(info.data["home"] / "store") if "home" in info.data else value

    @field_validator("tracking_uri")
    @classmethod
    def _default_tracking(cls, value: str, info: ValidationInfo) -> str:
        return value or f"sqlite:///{info.data['home'] / 'mlflow.db'}" if "home" in info.data else value

    @field_validator("scratch")
    @classmethod
    def _default_scratch(cls, value: Path, info: ValidationInfo) -> Path:
        if value == Path() and "home" in info.data:
            return Path(info.data["home"]) / "scratch"
        return value.expanduser().absolute()

    def for_jobs(self) -> dict[str, str]:
        """Return the environment of a job on another machine, without secrets.

        Ray shows a job's environment to everybody who can open its dashboard; so the cluster's machines must have
        their own GENAI_S3_ACCESS_KEY and GENAI_S3_SECRET_KEY, or AWS's own credentials. Local folders are theirs, too.
        """
        here = {"home", "scratch", "ray_address", "s3_access_key", "s3_secret_key"}
        values = self.model_dump(exclude=here)
        return {f"GENAI_{name.upper()}": str(value) for name, value in values.items()}


def read_settings(**given: Any) -> Settings:
    """Return the settings of the environment, with the values given over them.

    Raises ConfigError naming the variable, never its value: it may be a secret.
    """
    try:
        settings = Settings(**given)
    except ValidationError as error:
        faults = "; ".join(
            f"GENAI_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigError(f"Settings cannot be used: {faults}. Correct or unset the variable.") from None
    if settings.stale_claim_seconds < 2 * settings.heartbeat_seconds:
        raise ConfigError(
            f"GENAI_STALE_CLAIM_SECONDS={settings.stale_claim_seconds:g} is less than two heartbeats of "
            f"GENAI_HEARTBEAT_SECONDS={settings.heartbeat_seconds:g}: live runs would lose their claims. Raise it."
        )
    return settings
