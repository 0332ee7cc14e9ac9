"""Which text is meant, exactly, and can it be read: answered without torch, before anything runs.

A digest covers relative names and bytes, never the place: the same files elsewhere are the same source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from genai_core.config.data import DatasetsSource, Pairs, PydocsSource, S3Source, Source
from genai_core.config.settings import read_settings
from genai_core.data import pydocs
from genai_core.data.pair_rows import check_pair_rows, check_rows, fields_of
from genai_core.data.sources import csv, jsonl, markdown, parquet, text
from genai_core.data.sources.datasets import HUB
from genai_core.data.sources.files import SourceFiles, find_files
from genai_core.data.sources.registry import read_documents
from genai_core.data.sources.tables import find_field, missing_field
from genai_core.data.split import require_groups
from genai_core.errors import DataError
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.digest import digest_entries
from genai_core.storage.digest_cache import DigestCache

READ_WHOLE_BYTES = 16 << 20  # about a second; of a larger source only the first rows are tried
FIRST_ROWS = 2000
COMMIT = re.compile(r"[0-9a-f]{40}")
SUFFIXES = {
    "text": text.SUFFIXES,
    "markdown": markdown.SUFFIXES,
    "jsonl": jsonl.SUFFIXES,
    "csv": csv.SUFFIXES,
    "parquet": parquet.SUFFIXES,
}


def resolve_source(
    source: Source, bad_row_share: float = 0.01, fields: Sequence[str] = (), pairs: Pairs | None = None
) -> ArtifactRef:
    """Return a reference to the source's exact content, after trying to read it.

    Args:
        bad_row_share: unreadable rows up to this share, of at least 100, are no error.
        fields: further fields that every table must have in some of its first rows, with text or a number in all.
        pairs: what will be built of the rows: its fields too must be there and hold what it reads.

    Raises:
        DataError: missing, empty, binary, a named field that is not there, too many rows that are unreadable or do not fit.
        StorageError: the S3 server cannot be reached.
    """
    match source:
        case PydocsSource():
            return _refer("pydocs", pydocs.digest(), "pydocs:")
        case S3Source():
            return _resolve_s3(source)
        case DatasetsSource():
            return _resolve_dataset(source, bad_row_share, fields, pairs)
        case _:
            files = find_files(source.path, SUFFIXES[source.kind])
            _try_reading(source, source.path, files, bad_row_share, fields, pairs)
            return _refer(_name(source.path), digest_files(files), _absolute(source.path))


def digest_files(files: SourceFiles) -> str:
    """Return the digest of files by relative name and content; hashing is cached by what the file system says."""
    digests = DigestCache(read_settings().scratch).files(files.paths)
    return digest_entries(
        (files.relative(path), path.stat().st_size, digest) for path, digest in zip(files.paths, digests, strict=True)
    )


def require_unchanged(source: Source, ref: ArtifactRef) -> None:
    """Raise DataError if local files are no longer what `resolve_source` saw: they would be published under its digest."""
    if isinstance(source, PydocsSource):
        now = pydocs.digest()
    elif isinstance(source, S3Source) or ref.uri.startswith(HUB):
        return  # checked where it is fetched; a commit does not change
    else:
        now = digest_files(find_files(ref.uri, ("",) if isinstance(source, DatasetsSource) else SUFFIXES[source.kind]))
    if now != ref.digest:
        raise DataError(
            f"{ref.uri} has changed since this run looked at it ({ref.digest[:8]} then, {now[:8]} now). Run again, to use "
            "what is there now."
        )


def _try_reading(
    source: Source,
    place: str,
    files: SourceFiles,
    bad_row_share: float,
    fields: Sequence[str],
    pairs: Pairs | None,
) -> None:
    limit = None if files.size() <= READ_WHOLE_BYTES else FIRST_ROWS
    found = read_documents(source, place, bad_row_share, limit)
    if not any(document.text.strip() for document in found.documents):
        raise DataError(
            f"{place!r} was read ({found.rows:,} rows), but holds no text: every document is empty. Check text_field, "
            "or give another source."
        )
    if limit is None:
        require_groups(len(found.documents), len({document.group for document in found.documents}), {})
    rows = [document.meta.get("fields", {}) for document in found.documents[:FIRST_ROWS]]
    texts = getattr(source, "text_field", "")
    wanted = [(name, "data.pairs") for name in (*fields, *(fields_of(pairs) if pairs else ()))]
    wanted += [(name, "data.source.text_field") for name in texts] if isinstance(texts, tuple) else []
    for name, setting in wanted:
        if not any(find_field(row, name)[1] for row in rows):
            known = dict.fromkeys(known for row in rows for known in row)
            raise DataError(f"{place!r}: {missing_field(name, known)}. Correct {setting}, which names it.")
    check_rows(found.documents, fields, (), bad_row_share)
    if pairs is not None:
        check_pair_rows(found.documents, pairs, bad_row_share)


def _resolve_s3(source: S3Source) -> ArtifactRef:
    from genai_core.storage.s3 import digest_prefix

    return _refer(_name(source.path.rstrip("/")), digest_prefix(source.path, read_settings()), source.path)


def _resolve_dataset(
    source: DatasetsSource, bad_row_share: float, fields: Sequence[str], pairs: Pairs | None
) -> ArtifactRef:
    folder = Path(source.path).expanduser()
    if folder.is_dir():
        files = find_files(folder, ("",))
        _try_reading(source, str(folder), files, bad_row_share, fields, pairs)
        return _refer(_name(source.path), digest_files(files), _absolute(source.path))
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source.path):
        raise DataError(
            f"source.path={source.path!r} is neither an existing folder nor a hub id such as 'owner/name'. Correct it."
        )
    commit = source.revision if COMMIT.fullmatch(source.revision) else _newest_commit(source)
    return _refer(_name(source.path), digest_entries([(source.path, 0, commit)]), f"{HUB}{source.path}@{commit}")


def _newest_commit(source: DatasetsSource) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(source.path, revision=source.revision or None).sha
    except Exception as error:  # offline mode, no network, no such dataset, no access: unrelated classes
        raise DataError(
            f"There is no folder {source.path!r}, and the hub dataset of this name cannot be looked up: "
            f"{type(error).__name__}: {str(error).splitlines()[0][:200]} Check the name and the network (HF_HUB_OFFLINE); "
            "or name a commit of 40 characters in source.revision; or give a folder written by save_to_disk."
        ) from error
    if not commit:
        raise DataError(f"The hub tells no commit for dataset {source.path!r}. Name one in source.revision.")
    return str(commit)


def _refer(name: str, digest: str, uri: str) -> ArtifactRef:
    return ArtifactRef(kind=ArtifactKind.SOURCE, name=name, version=digest[:8], digest=digest, uri=uri)


def _name(path: str) -> str:
    stem = Path(path).name.split(".")[0] or "text"
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "text"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
