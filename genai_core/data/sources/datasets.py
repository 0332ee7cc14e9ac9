"""A dataset of the `datasets` library: a folder written by `save_to_disk`, or a hub id at a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genai_core.config.data import DatasetsSource
from genai_core.data.documents import Document
from genai_core.data.sources.result import ReadResult, RowLedger
from genai_core.data.sources.tables import BadRowError, require_column, row_document, say_fields
from genai_core.errors import DataError

HUB = "hf://datasets/"


def read(source: DatasetsSource, place: Path | str, bad_row_share: float, limit: int | None = None) -> ReadResult:
    """Return one document a row. Raises DataError for a missing split or column.

    Args:
        place: a folder of `save_to_disk`, or 'hf://datasets/owner/name@commit' as resolved at the start of the run.
    """
    table = _open(source, str(place))
    require_column(source.text_field, table.column_names, source.path, "data.source.text_field")
    if source.group_field:
        require_column(source.group_field, table.column_names, source.path, "data.source.group_field")
    ledger = RowLedger(bad_row_share)
    documents: list[Document] = []
    name = Path(source.path).name
    for number, row in enumerate(table, start=1):
        if limit is not None and number > limit:
            break
        try:
            documents.append(row_document(row, f"{name}:{number}", source.text_field, source.group_field))
            ledger.good()
        except BadRowError as error:
            ledger.skip(name, number, str(error))
    return ledger.judge(documents, f"text in column {say_fields(source.text_field)}")


def _open(source: DatasetsSource, place: str) -> Any:
    import datasets

    if place.startswith(HUB):
        repo, _, commit = place.removeprefix(HUB).partition("@")
        try:
            return datasets.load_dataset(repo, split=source.split, revision=commit)
        except Exception as error:  # the hub client raises a dozen unrelated classes
            raise DataError(
                f"The hub dataset {repo!r} at {commit[:12]} cannot be loaded: {str(error).splitlines()[0]}. Check the "
                "network and its name, or download it elsewhere and give the folder written by save_to_disk."
            ) from error
    try:
        found = datasets.load_from_disk(place)
    except (FileNotFoundError, ValueError, OSError) as error:
        raise DataError(
            f"{place!r} is not a folder written by datasets' save_to_disk: {str(error).splitlines()[0]}."
        ) from error
    if isinstance(found, datasets.DatasetDict):
        if source.split not in found:
            raise DataError(f"{place!r} has no split {source.split!r}; it has {', '.join(sorted(found))}.")
        return found[source.split]
    return found
