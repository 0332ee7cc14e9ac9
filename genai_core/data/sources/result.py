"""What reading a source gives, and how many unreadable rows it may have."""

from __future__ import annotations

from dataclasses import dataclass, field

from genai_core.data.documents import Document
from genai_core.errors import DataError

LEAST_ROWS_TO_SKIP = 100  # below this, one bad row is already a large share: the person should look at it
SHOWN = 5


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The documents of a source in reading order, and what was skipped."""

    documents: list[Document]
    rows: int
    """Rows (or files, for text kinds) that were read, unreadable ones included."""

    skipped: int = 0
    first_skipped: tuple[str, ...] = ()
    """The first five unreadable rows as 'file:line: reason'."""


@dataclass
class RowLedger:
    """Counts rows and keeps the unreadable ones until their share can be judged."""

    bad_row_share: float
    rows: int = 0
    bad: int = 0
    shown: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)

    def good(self) -> None:
        """Count a readable row."""
        self.rows += 1

    def skip(self, place: str, line: int, reason: str) -> None:
        """Count an unreadable row; `line` counts from 1 as an editor does."""
        self.rows += 1
        self.bad += 1
        if len(self.reasons) < SHOWN:
            self.reasons.add(reason)
        if len(self.shown) < SHOWN:
            self.shown.append(f"{place}:{line}: {reason}")

    def judge(self, documents: list[Document], expected: str) -> ReadResult:
        """Return the result. Raises DataError when there are too many unreadable rows to skip."""
        if self.bad == self.rows and len(self.reasons) == 1 and next(iter(self.reasons)).startswith("no field"):
            raise DataError(
                f"{self.shown[0].partition(':')[0]}: {next(iter(self.reasons))}, in each of {self.rows:,} rows. Set "
                "data.source.text_field to the field that holds the text, or to a list of fields, such as "
                "[instruction, input, output]; `genai recipe new --from PATH` looks and proposes."
            )
        few = self.rows >= LEAST_ROWS_TO_SKIP and self.bad <= self.bad_row_share * self.rows
        if self.bad and not few:
            share = f"{self.bad:,} of {self.rows:,} rows ({100 * self.bad / self.rows:.1f} %) are unreadable"
            if self.rows < LEAST_ROWS_TO_SKIP:
                rule = f"with fewer than {LEAST_ROWS_TO_SKIP} rows none is skipped"
            else:
                rule = f"at most {100 * self.bad_row_share:g} % are skipped (data.bad_row_share)"
            raise DataError(
                f"{share}; {rule}. Expected {expected}. First:\n  "
                + "\n  ".join(self.shown)
                + "\nMend or remove these rows, or raise data.bad_row_share."
            )
        return ReadResult(documents, self.rows, self.bad, tuple(self.shown))
