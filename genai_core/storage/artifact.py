"""What passes between tasks: a small reference to a published directory."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from genai_core.config.base import Config


class ArtifactKind(StrEnum):
    """What a published directory holds."""

    SOURCE = "source"  # something of the user's: text, a base model; never published by us, only pointed at
    DATASET = "dataset"
    MODEL = "model"
    ADAPTER = "adapter"
    ERASER = "eraser"
    REPORT = "report"


class ArtifactRef(Config):
    """A reference to an artifact, as JSON. Never the thing itself.

    `digest` covers the content only (paths, sizes, sha256 of every file); `key` is the stage key that made it,
    empty for a source; `version` is a short readable form of the key.
    """

    kind: ArtifactKind
    name: str = Field(description="Readable name, such as 'pydocs-base'.")
    version: str = Field(description="First characters of the stage key, or of the digest for a source.")
    digest: str = Field(description="sha256 over the content, hexadecimal.")
    uri: str = Field(description="Where it lies.")
    key: str = Field(default="", description="Stage key, hexadecimal; '' for a source.")

    def label(self) -> str:
        """Return `name@version`."""
        return f"{self.name}@{self.version}"
