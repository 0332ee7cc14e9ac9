"""An object store in a folder: every write is a whole file under another name, made durable, then renamed.

`put_if_absent` is a hard link, which the file system grants to exactly one of many. Where it has no hard links, the
file is created exclusively instead; then a reader may for a moment see an unfinished object.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from genai_core.errors import DiskFullError, StorageError, is_disk_full
from genai_core.storage.objects import Entry

DRAFTS = ".drafts"
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class FolderStore:
    """The ObjectStore protocol below one folder, which is made if it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        with self._explained("."):
            self.root.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"FolderStore({self.root})"

    @property
    def uri(self) -> str:
        """Return file:///..., the folder's address."""
        return self.root.as_uri()

    def get(self, path: str) -> bytes | None:
        """Return the bytes of an object, or None if there is none."""
        with self._explained(path):
            try:
                return self._locate(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def put(self, path: str, data: bytes) -> None:
        """Write an object, atomically, replacing what was there."""
        target = self._locate(path)
        with self._explained(path), self._draft() as draft:
            _write(draft, data)
            _settle(draft.replace, target)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none; return whether it was written. Exactly one of many callers wins."""
        target = self._locate(path)
        if target.exists():
            return False
        with self._explained(path), self._draft() as draft:
            _write(draft, data)
            try:
                _settle(lambda where: os.link(draft, where), target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                return _create(target, data)
        return True

    def delete(self, path: str) -> None:
        """Delete an object, and the folders it leaves empty; nothing happens if there is none."""
        target = self._locate(path)
        with self._explained(path):
            try:
                target.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            # the first level (artifacts, claims, work) stays: it is made again all the time
            for depth in range(1, len(PurePosixPath(path).parts) - 1):
                try:
                    target.parents[depth - 1].rmdir()
                except OSError:  # not empty, or already gone: both are as they should be
                    break

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose path starts with the prefix, in path order."""
        folder = self._locate(prefix.rpartition("/")[0] or ".")
        with self._explained(prefix):
            yield from self._walk(folder, prefix)

    def put_file(self, path: str, source: Path) -> None:
        """Copy a local file into the store, atomically."""
        target = self._locate(path)
        with self._explained(path), self._draft() as draft:
            shutil.copyfile(source, draft)
            _sync(draft)
            _settle(draft.replace, target)

    def link_file(self, path: str, source: Path) -> None:
        """Put a local file into the store without copying its bytes where that is safe and possible.

        The file then has two names and must not be changed under the first one any more: the caller gives it away.
        A file that already has another name somewhere, or lies on another disk, is copied.
        """
        target = self._locate(path)
        try:
            with self._explained(path), self._draft() as draft:
                if source.is_symlink() or source.stat().st_nlink != 1:
                    raise OSError(errno.EMLINK, "shared with a name that we do not own", str(source))
                _sync(source)
                os.link(source, draft)
                _settle(draft.replace, target)
        except StorageError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in NO_HARD_LINKS:
                raise
            self.put_file(path, source)

    def get_file(self, path: str, target: Path) -> None:
        """Copy an object to a local file. Raises StorageError if there is none."""
        source = self._locate(path)
        with self._explained(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
            try:
                shutil.copyfile(source, draft)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)

    def local_path(self, path: str) -> Path | None:
        """Return where the object or directory lies."""
        return self._locate(path)

    def clear_drafts(self, older_than_seconds: float, now: float) -> None:
        """Delete unfinished writes that a crash left behind."""
        for draft in (self.root / DRAFTS).glob("*"):
            try:
                if now - draft.stat().st_mtime > older_than_seconds:
                    draft.unlink()
            except FileNotFoundError:  # its writer has just finished
                continue

    def _locate(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if path.startswith("/") or "\\" in path or "\0" in path or ".." in parts or DRAFTS in parts[:1]:
            raise StorageError(f"{path!r} is not a path inside the store {self.uri}: no '..', no '/' at the start.")
        return self.root.joinpath(*parts)

    def _walk(self, folder: Path, prefix: str) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as found:
                # 'a.b' comes before 'a/b': a directory sorts with its slash
                rows = sorted((row.name + "/" if row.is_dir() else row.name, row) for row in found)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, row in rows:
            path = Path(row.path).relative_to(self.root).as_posix()
            if name.endswith("/"):
                inside = f"{path}/"
                if path != DRAFTS and (inside.startswith(prefix) or prefix.startswith(inside)):
                    yield from self._walk(Path(row.path), prefix)
            elif path.startswith(prefix):
                try:
                    stat = row.stat()
                except FileNotFoundError:  # deleted while we were listing
                    continue
                yield Entry(path, stat.st_size, stat.st_mtime)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        folder = self.root / DRAFTS
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / uuid.uuid4().hex
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(
                    f"No space left in the store {self.root} while writing {path}. Free some and run again: it resumes."
                ) from error
            if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
                raise StorageError(
                    f"The store {self.root} does not let us use {path}: {error.strerror}. Give write permission, "
                    "or choose another folder with --storage or GENAI_STORAGE_URI."
                ) from error
            raise StorageError(f"The store {self.root} failed at {path}: {error.strerror or error}.") from error


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _create(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(path, data)
    except FileExistsError:
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _settle(place: Callable[[Path], object], target: Path) -> None:
    """Give a finished draft its name, and make the name durable."""
    for tries_left in reversed(range(100)):
        # while we make a folder, another may delete its last object and the folder with it: then once more
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
            continue
        try:
            place(target)
        except FileNotFoundError:
            if not tries_left:
                raise
            continue
        with suppress(FileNotFoundError):  # the object has been deleted again already
            _sync(target.parent)
        return
