"""Finding and opening the files of a source: folders, globs, packed files; what is not text is refused by name."""

from __future__ import annotations

import bz2
import difflib
import glob
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from genai_core.errors import DataError

HEAD_BYTES = 1 << 16
MAGIC = "*?["
UTF8 = "utf-8"
BOM = b"\xef\xbb\xbf"

PACKED = (".gz", ".bz2", ".xz")
"""Endings of packed files that the standard library opens; each may follow any ending of text."""

FORMATS = {
    b"\x1f\x8b": "a gzip file. Let its name end in .gz, and it is unpacked",
    b"BZh": "a bzip2 file. Let its name end in .bz2, and it is unpacked",
    b"\xfd7zXZ": "an xz file. Let its name end in .xz, and it is unpacked",
    b"\x28\xb5\x2f\xfd": "a zstd file, which cannot be unpacked here. Unpack it: `unzstd FILE`",
    b"PK\x03\x04": "a zip archive (or .docx, .xlsx, .epub, .odt). Unpack it, or export its text",
    b"%PDF": "a PDF. Turn it into text: `pdftotext FILE.pdf`",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file. Export its text, or a CSV",
    b"PAR1": "a Parquet file. Use `kind: parquet`",
    b"SQLite format 3": "an SQLite database. Export the table as CSV",
}
"""First bytes of what people give by mistake, and what to do then."""


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a source, in order of their path relative to `root`. Only relative names enter ids and digests."""

    root: Path
    paths: tuple[Path, ...]

    def relative(self, path: Path) -> str:
        """Return the path below the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def size(self) -> int:
        """Return the bytes of all files, as they lie on disk."""
        return sum(path.stat().st_size for path in self.paths)


def find_files(place: Path | str, suffixes: Sequence[str]) -> SourceFiles:
    """Return the files of a file path, a folder (searched for the suffixes) or a glob pattern.

    Raises:
        DataError: nothing is there, nothing matches, a file cannot be read, or all files are empty.
    """
    text = str(place)
    path = Path(text).expanduser()
    if path.is_file():
        files = SourceFiles(path.parent, (path,))
    elif path.is_dir():
        files = SourceFiles(path, _matching(path, suffixes))
        if not files.paths:
            wanted = ", ".join(f"*{suffix}" for suffix in suffixes if not suffix.endswith(PACKED))
            wanted += " (also packed: .gz, .bz2, .xz)" if any(suffix.endswith(PACKED) for suffix in suffixes) else ""
            raise DataError(f"The folder {text!r} holds no file named {wanted}. {_what_is_there(path)}")
    elif any(sign in text for sign in MAGIC):
        root = _fixed_part(path)
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise DataError(f"No file matches the pattern {text!r}. Check it with `ls`; `**` searches all levels.")
        files = SourceFiles(root, tuple(sorted(found, key=lambda file: file.relative_to(root).as_posix())))
    else:
        raise DataError(f"There is no file or folder {text!r}. {_nearest(path)}")
    if not any(file.stat().st_size for file in files.paths):
        which = f"{text!r} holds" if len(files.paths) == 1 else f"all {len(files.paths)} files of {text!r} hold"
        raise DataError(f"{which} 0 bytes: there is no text to learn from. Give a file with content.")
    return files


def open_binary(path: Path) -> IO[bytes]:
    """Return the file opened for reading, unpacked where its name ends in .gz, .bz2 or .xz. Raises DataError."""
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(path.suffix)
    try:
        return cast("IO[bytes]", opener(path, "rb")) if opener else path.open("rb")
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be opened: {error.strerror}. Check its permissions.") from error


def read_plain(path: Path) -> bytes:
    """Return the bytes of a file, unpacked. Raises DataError."""
    return b"".join(chunks(path))


def chunks(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked. Raises DataError when it cannot be read or is damaged."""
    try:
        with open_binary(path) as handle:
            while chunk := handle.read(size):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        kind = {".bz2": "bzip2", ".xz": "xz"}.get(path.suffix, "gzip")
        raise DataError(f"{str(path)!r} is not a whole {kind} file: {error}. Pack or copy it again.") from error
    except OSError as error:
        if path.suffix == ".bz2" and error.errno is None:  # the module's only word for damage
            raise DataError(f"{str(path)!r} is not a whole bzip2 file: {error}. Pack or copy it again.") from error
        raise DataError(f"{str(path)!r} cannot be read: {error}. Check its permissions.") from error


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line without its end) of a text file. Raises DataError if its head is binary."""
    rest, number = b"", 0
    for index, chunk in enumerate(chunks(path)):
        if index == 0:
            refuse_binary(path, chunk[:HEAD_BYTES])
        *whole, rest = (rest + chunk.removeprefix(BOM) if index == 0 else rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield number, line.removesuffix(b"\r")
    if rest:
        yield number + 1, rest.removesuffix(b"\r")


def read_text(path: Path, encoding: str = UTF8) -> str:
    """Return a text file's content. Raises DataError for what is not in this encoding, naming the first bad byte."""
    data = read_plain(path)
    refuse_binary(path, data)
    try:
        return data.removeprefix(BOM).decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{str(path)!r} is not {encoding.upper()} text: byte 0x{data[error.start]:02x} at line {line}, offset "
            f"{error.start:,}. {say_encoding(data)}"
        ) from error


def say_encoding(data: bytes) -> str:
    """Return the remedy for text that is not UTF-8."""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "Convert it with `iconv -f ENCODING -t utf-8`, or name its encoding in data.source.encoding."
    return "If it was written on Windows or is Latin-1, set data.source.encoding: cp1252; or convert it with iconv."


def packed_too(*suffixes: str) -> tuple[str, ...]:
    """Return the endings, each also as the file has it when it is packed."""
    return tuple(suffix + packed for suffix in suffixes for packed in ("", *PACKED))


def refuse_binary(path: Path, head: bytes) -> None:
    """Raise DataError if the bytes are not text: a known format, UTF-16, or anything with NUL bytes."""
    for magic, what in FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{str(path)!r} is not text but {what}.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{str(path)!r} is UTF-16 text. Convert it: `iconv -f utf-16 -t utf-8`.")
    if b"\0" in head:
        raise DataError(
            f"{str(path)!r} is binary: a NUL byte at offset {head.index(0):,} (it begins with {head[:8]!r}). "
            "Expected UTF-8 text. Give a text file, or the source kind that fits it (parquet, datasets)."
        )


def _matching(folder: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    found = (
        path
        for path in folder.rglob("*")
        if path.name.endswith(tuple(suffixes))
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def _fixed_part(pattern: Path) -> Path:
    parts = []
    for part in pattern.parts[:-1]:
        if any(sign in part for sign in MAGIC):
            break
        parts.append(part)
    return Path(*parts) if parts else Path()


def _what_is_there(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "It is empty."
    return f"It holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}. Choose the source kind that fits."


def _nearest(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"Its folder {str(parent)!r} does not exist either. Give a path that exists, relative to where you are."
    close = difflib.get_close_matches(path.name, sorted(entry.name for entry in parent.iterdir()), n=1)
    return f"Did you mean {str(parent / close[0])!r}?" if close else "Give a path that exists."
