"""Closed book: a summary alone, the dotted name it belongs to.

The prompt does not hold the answer, so this measures what was memorised of the training text. It is reported apart from
the open-book tasks and decides nothing at the gate. Cases are those of `calls`.
"""

from __future__ import annotations

from genai_core.augmentation.retrieval_prompts import ALONE, ORACLE

CLOSED_BOOK = ("name",)


def is_closed_book(task: str) -> bool:
    """Return whether a task's prompts leave out what is needed for the answer: names, and questions without documents."""
    return base_task(task) in CLOSED_BOOK or task.endswith(f"-{ALONE}")


def base_task(task: str) -> str:
    """Return the task that training knows: `call` of `call-alone` and `call-oracle`."""
    return task.removesuffix(f"-{ALONE}").removesuffix(f"-{ORACLE}")
