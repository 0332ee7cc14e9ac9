"""Digests: what defines a result, and what its bytes are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from genai_core.config.base import canonical
from genai_core.storage.artifact import ArtifactRef

CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Return the one JSON encoding of a value: keys sorted, no spaces, UTF-8, no NaN."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_json(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON, hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def digest_entries(entries: Iterable[tuple[str, int, str]]) -> str:
    """Return the digest of a directory from its (relative path, size, sha256) entries, in path order."""
    return digest_json([list(entry) for entry in sorted(entries)])


def stage_key(stage: str, code_version: int, config: Any, inputs: Mapping[str, ArtifactRef]) -> str:
    """Return the identity of a stage: its name, code version, canonical config and the digests of its inputs.

    Where it runs (paths, hosts, retries, credentials) is not in it. The same key
    always means the same result, so a published artifact of the key is never computed again.
    """
    return digest_json(
        {
            "stage": stage,
            "code_version": code_version,
            "config": canonical(config),
            "inputs": {name: ref.digest for name, ref in inputs.items()},
        }
    )
