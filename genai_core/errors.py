"""Every error that a caller can act on; the class says who can act.

    GenaiCoreError
    ├── UserError               exit 2: the person who wrote the command or the recipe
    │   ├── ConfigError         the recipe: unknown key, wrong type, values that contradict each other
    │   ├── DataError           the corpus: missing, empty, binary, unreadable rows
    │   └── ModelError          the base model: not there, vocabulary or length mismatch
    ├── StorageError            exit 1: bytes
    │   ├── IntegrityError      what was read is not what was written
    │   ├── ClaimLostError      another attempt has taken this stage over; this one must stop
    │   └── DiskFullError       no space left; resumable
    ├── StageFailedError        exit 1: a stage's job ended without an artifact
    ├── TrainingDivergedError   exit 1: NaN or spikes beyond the budget, with a diagnosis
    ├── TransientError          worth a retry: a server or a worker went away
    │   └── ClusterStartError   Ray did not start; the next try needs another process
    └── InterruptedRunError     exit 130: a person stopped it; resumable

A message says what was wrong, which value, and what to do.
"""

import errno


class GenaiCoreError(Exception):
    """Base of all our errors."""

    exit_code = 1


class UserError(GenaiCoreError):
    """A mistake that the user can correct; shown without a traceback."""

    exit_code = 2


class ConfigError(UserError):
    """The recipe or a command line option is wrong."""


class DataError(UserError):
    """The text or table given as data cannot be used."""


class ModelError(UserError):
    """The base model or tokenizer given cannot be used."""


class StorageError(GenaiCoreError):
    """The object store failed."""


class IntegrityError(StorageError):
    """Bytes differ from what their manifest says."""


class ClaimLostError(StorageError):
    """A newer attempt holds the claim; whatever this one has must not be published."""


class DiskFullError(StorageError):
    """No space left on the device; free some and run again to resume."""


class StageFailedError(GenaiCoreError):
    """A stage's job ended without an artifact."""


class TrainingDivergedError(GenaiCoreError):
    """The loss is not finite or spikes beyond the budget."""


class TransientError(GenaiCoreError):
    """A machine's or a network's fault; the same call may succeed later."""


class ClusterStartError(TransientError):
    """Ray did not start here; its process remembers that, so the next try needs another one."""


class InterruptedRunError(GenaiCoreError):
    """Stopped by a signal; the state is resumable."""

    exit_code = 130


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that no space is left: whoever wrote, and in what words."""
    while error is not None:
        if isinstance(error, DiskFullError) or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        ):
            return True
        if any(words in str(error) for words in ("No space left on device", "database or disk is full")):
            return True
        error = error.__cause__ or error.__context__
    return False
