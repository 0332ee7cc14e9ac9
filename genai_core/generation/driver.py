"""Runs algorithms that ask a model midway, thousands at once: the requests of all of them go out as one batch a round.

An algorithm is a generator: it yields a list of requests, is sent the list of their completions, and returns its
result. It does no I/O and knows no model, so a test drives it with canned answers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from genai_core.generation.types import Completion, Request

T = TypeVar("T")


def drive(
    algorithms: Sequence[Generator[list[Request], list[Completion], T]],
    complete: Callable[[list[Request]], list[Completion]],
) -> list[T]:
    """Return the algorithms' results, in their order.

    A round asks for what all running algorithms want, in their order, so the rounds are a function of the algorithms and
    of the completions alone: a driver run again after a crash asks the same batches again.

    Args:
        algorithms: fresh generators.
        complete: called once a round with at least one request; returns one completion a request, in order.
    """
    results: dict[int, T] = {}
    wanted: dict[int, list[Request]] = {}

    def resume(index: int, completions: list[Completion] | None) -> None:
        try:
            wanted[index] = algorithms[index].send(completions)  # type: ignore[arg-type]
        except StopIteration as stop:
            wanted.pop(index, None)
            results[index] = stop.value

    for index in range(len(algorithms)):
        resume(index, None)
    while wanted:
        running = sorted(wanted)
        requests = [request for index in running for request in wanted[index]]
        completions = complete(requests) if requests else []
        if [completion.row_id for completion in completions] != [request.row_id for request in requests]:
            raise ValueError(
                f"{len(requests)} requests were answered by {len(completions)} completions or in another order."
            )
        start = 0
        for index in running:
            count = len(wanted[index])
            resume(index, completions[start : start + count])
            start += count
    return [results[index] for index in range(len(algorithms))]
