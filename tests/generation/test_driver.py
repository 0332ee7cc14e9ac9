"""The driver batches what running algorithms ask, gives each its own answers, and returns results in order."""

from __future__ import annotations

import pytest

from genai_core.generation.driver import drive
from genai_core.generation.types import Completion, Request


def countdown(name: str, turns: int):
    """Ask `turns` times, `turns` requests the first time and one less each time; return all that was answered."""
    heard = []
    for turn in range(turns, 0, -1):
        completions = yield [Request(f"{name}/{turn}/{i}", f"{name}{turn}{i}") for i in range(turn)]
        heard += [completion.text for completion in completions]
    return name, heard


def echo(rounds: list[list[str]]):
    def complete(requests: list[Request]) -> list[Completion]:
        rounds.append([request.row_id for request in requests])
        return [Completion(r.row_id, r.prompt.upper(), (1,), -1.0, "stop", 1) for r in requests]

    return complete


def test_results_come_in_order_and_each_hears_its_own_answers():
    rounds: list[list[str]] = []
    results = drive([countdown("a", 1), countdown("b", 3), countdown("c", 0), countdown("d", 2)], echo(rounds))
    assert results == [
        ("a", ["A10"]),
        ("b", ["B30", "B31", "B32", "B20", "B21", "B10"]),
        ("c", []),
        ("d", ["D20", "D21", "D10"]),
    ]
    assert [len(asked) for asked in rounds] == [1 + 3 + 2, 2 + 1, 1]
    assert rounds[1] == ["b/2/0", "b/2/1", "d/1/0"]


def test_an_empty_wish_costs_no_call():
    def silent():
        assert (yield []) == []
        assert (yield []) == []
        return "done"

    rounds: list[list[str]] = []
    assert drive([silent()], echo(rounds)) == ["done"]
    assert rounds == []


def test_thousands_run_in_as_many_rounds_as_the_longest():
    rounds: list[list[str]] = []
    results = drive([countdown(str(i), i % 4) for i in range(3000)], echo(rounds))
    assert [name for name, _ in results] == [str(i) for i in range(3000)]
    assert len(rounds) == 3


def test_completions_in_another_order_are_refused():
    with pytest.raises(ValueError, match="another order"):
        drive([countdown("a", 2)], lambda requests: echo([])(requests)[::-1])


def test_an_algorithms_error_is_not_swallowed():
    def broken():
        yield [Request("x", "x")]
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        drive([broken()], echo([]))
