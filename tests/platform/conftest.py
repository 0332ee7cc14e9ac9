"""One platform for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.platform.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("platform"))
    try:
        stack.bring_up()
        yield stack
    finally:
        stack.take_down()
