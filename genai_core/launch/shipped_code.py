"""This package's code as one archive, for jobs of a cluster whose machines have the libraries but another copy, or none.

    genai_core/__init__.py, genai_core/launch/...       nothing else: no tests, no flows, no data

The same code gives the same bytes: Ray names an archive by its content, and takes it once.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import genai_core
from genai_core.errors import ConfigError

MAX_BYTES = 16 * 1024 * 1024
"""Larger than that is no code any more. Ray keeps archives in the memory of its head."""


def pack_code(package: Path = Path(genai_core.__file__).parent, max_bytes: int = MAX_BYTES) -> bytes:
    """Return a zip with the folder of a package in it.

    Args:
        package: the folder, whose name is that of the package.
        max_bytes: of all files together.

    Raises:
        ConfigError: there is more in the folder, so something lies there that does not belong there.
    """
    files = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    size = sum(path.stat().st_size for path in files)
    if size > max_bytes:
        largest = max(files, key=lambda path: path.stat().st_size)
        raise ConfigError(
            f"compute.ship_code would send the {size:,} bytes of {package} with every job, more than {max_bytes:,}. "
            f"The largest file is {largest}. Take out what is not code, or set compute.ship_code to false."
        )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:  # not compressed: two versions of zlib would give two archives
        for path in files:
            entry = zipfile.ZipInfo(str(path.relative_to(package.parent)))  # with one date for all, 1980
            entry.external_attr = 0o644 << 16
            target.writestr(entry, path.read_bytes())
    return archive.getvalue()
