"""Answers filled up with their end mark, so that a model that sees how many masks follow learns where answers end.

    prompt | a a a <end>                          with an answer of 8:
    prompt | a a a <end> <end> <end> <end> <end>  all of them trained on

A model that fills in masks sees how much room there is. Trained on answers as they are it would fill all the room that it
is given (LLaDA, arXiv 2502.09992, section 2.3). Of block diffusion the last block is filled up; more is not needed.
Long tails of end marks teach a model to end early (LLaDA's repository traces its gap between blocks and whole answers to
them), so an answer is filled up to a stated length and not to the row's.
"""

from __future__ import annotations

from genai_core.config.generation import DiffusionWriter


def fill_answer(
    ids: list[int], loss_mask: list[int], end_id: int, writer: DiffusionWriter, longest: int
) -> tuple[list[int], list[int]]:
    """Return an example with its answer filled up.

    Args:
        ids: of prompt and answer; the answer is at the end.
        loss_mask: 1 on what is trained on, for each of `ids`.
        end_id: the end mark.
        writer: how the model writes.
        longest: tokens that the example may have at most; one that is longer already stays as it is.
    """
    answer = len(ids) - max((at for at, one in enumerate(loss_mask) if not one), default=-1) - 1
    wanted = len(ids) + max(0, writer.answer_length - answer)
    if size := writer.block_length:
        wanted = -(-len(ids) // size) * size
    more = max(0, min(wanted, longest) - len(ids))
    return [*ids, *[end_id] * more], [*loss_mask, *[1] * more]
