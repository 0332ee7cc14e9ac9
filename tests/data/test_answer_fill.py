"""Where an answer ends after it was filled up."""

from genai_core.config.generation import DiffusionWriter
from genai_core.data.answer_fill import fill_answer

END = 9
IDS, MASK = [1, 2, 3, 4, 5, END], [0, 0, 0, 1, 1, 1]


def fill(longest: int = 100, **how: int):
    return fill_answer(IDS, MASK, END, DiffusionWriter(row_tokens=64, **how), longest)


def test_an_answer_has_the_stated_length_and_all_of_it_is_trained_on() -> None:
    assert fill(answer_length=5) == ([*IDS, END, END], [*MASK, 1, 1])
    assert fill(answer_length=3) == (IDS, MASK)
    assert fill(answer_length=2) == (IDS, MASK), "a longer one stays as it is"
    assert fill() == (IDS, MASK)


def test_a_block_is_filled_to_its_end_and_no_further() -> None:
    assert fill(block_length=4) == ([*IDS, END, END], [*MASK, 1, 1])
    assert fill(block_length=3) == (IDS, MASK)
    assert fill(block_length=16)[0] == [*IDS, *[END] * 10]


def test_a_row_is_never_too_long() -> None:
    assert fill(longest=7, answer_length=8) == ([*IDS, END], [*MASK, 1])
    assert fill(longest=4, answer_length=8) == (IDS, MASK)


def test_of_a_conversation_the_last_answer_is_meant() -> None:
    ids, mask = [1, 2, END, 3, 4, END], [0, 1, 1, 0, 1, 1]
    assert fill_answer(ids, mask, END, DiffusionWriter(row_tokens=64, answer_length=3), 100) == (
        [*ids, END],
        [*mask, 1],
    )
