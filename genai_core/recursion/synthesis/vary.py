"""One way of writing synthetic data: the model answers new requests about real documents, and is taken at its word.

A small model cannot be asked for "another example": it only follows the formats it was trained on. So it is asked, in
one of them, what no training pair asks (`requests.py`), and what it answers makes the pair:

    asked               textwrap.shorten(text, width, **kwargs) ... Write the call with text = 'red' and width = 7.
    answered            textwrap.shorten(text='red', width=7)                what was asked: the pair is asked + answered
                        textwrap.shorten(text='red', width=12)               not what was asked, but a valid call
    new instruction     textwrap.shorten(text, width, **kwargs) ... Call it with text = 'red' and width = 12.

A right answer is kept as it is (rejection sampling: RAFT, Dong et al. 2023, arXiv 2304.06767). For another valid one the
instruction is written from the answer (backtranslation, Li et al. 2023, arXiv 2308.06259), here by the template that wrote
the real ones instead of a backward model: right by construction. The last word has a verifier that never sees a right
answer. A quoted sentence that was not the asked one gives the pair that asks for it, in the same way.

A sample that is not taken is counted under the first reason that applies.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genai_core.augmentation.call_prompts import REQUESTS as CALL_REQUESTS
from genai_core.augmentation.call_prompts import asked_arguments, documented_names, write_call_prompt
from genai_core.augmentation.pydocs_pairs import write_call
from genai_core.augmentation.quote_pairs import REQUESTS as QUOTE_REQUESTS
from genai_core.augmentation.quote_pairs import read_passage, unique_beginning
from genai_core.augmentation.sentences import collapse_spaces, split_sentences
from genai_core.data.documents import Pair
from genai_core.feedback.answers import first_line, unwrap_code
from genai_core.feedback.calls import UnreadableCallError, build_signature, parse_call, parse_expression
from genai_core.feedback.verifiers.python_call import resolve_name
from genai_core.feedback.verify import Verifier
from genai_core.generation.types import Completion, Request


@dataclass(frozen=True, slots=True)
class Sample:
    """One raw sample: the request it was asked with, the answer, and what became of it."""

    source: Pair
    answer: str
    reason: str
    """Why it was not taken; '' = `pair` is a new pair."""

    pair: Pair | None = None


def vary(
    asked: Sequence[Pair], generation: int, objects: Mapping[str, Any], seed: int
) -> Generator[list[Request], list[Completion], list[Sample]]:
    """Ask every request once; return what became of each sample, in the order asked.

    Args:
        asked: requests whose answers can be checked from the prompt, each with an id of its own: another noise each.
        generation: number of the generation.
        objects: Python's objects and signatures; {} for other corpora.
        seed: of the choice of wording.
    """
    completions = yield [Request(row_id=pair.pair_id, prompt=pair.prompt) for pair in asked]
    verifier = Verifier(objects)
    return [
        _sample(pair, completion, generation, verifier, objects, random.Random(f"{seed}/{completion.row_id}"))
        for pair, completion in zip(asked, completions, strict=True)
    ]


def _sample(
    source: Pair,
    completion: Completion,
    generation: int,
    verifier: Verifier,
    objects: Mapping[str, Any],
    rng: random.Random,
) -> Sample:
    answer = completion.text.strip()
    if completion.finish_reason == "length":
        return Sample(source, answer, "truncated")
    varied = vary_call(source, answer, objects, rng) if source.task == "call" else vary_quote(source, answer, rng)
    if isinstance(varied, str):
        return Sample(source, answer, varied)
    prompt, written = varied
    if collapse_spaces(written) == collapse_spaces(source.completion):
        prompt = source.prompt
    pair = Pair(
        pair_id=source.pair_id,
        task=source.task,
        group=source.group,
        doc_id=source.doc_id,
        prompt=prompt,
        completion=written,
        check={"kind": source.check["kind"], "gold": written},
        origin=f"synthetic-g{generation}",
    )
    # the last word has the verifier, on the pair as it will be trained on and from its prompt alone
    if verifier.judge(pair, written, use_gold=False).score < 1.0:
        return Sample(source, answer, "invalid")
    return Sample(source, answer, "", pair)


def vary_call(source: Pair, answer: str, objects: Mapping[str, Any], rng: random.Random) -> tuple[str, str] | str:
    """Return (instruction, call) for a sampled call of the documented object, or why there is none.

    The call is rewritten in canonical style (by position only where it must be), so that one thing has one form.
    """
    head = source.prompt.rpartition("\n\n")[0]
    line = first_line(unwrap_code(answer))
    try:
        call = parse_call(line)
        node = parse_expression(line)
    except UnreadableCallError:
        return "unparsable"
    known = resolve_name(call.name, objects)
    name = next((each for each in documented_names(source.prompt) if resolve_name(each, objects) == known), None)
    if known is None or name is None:
        return "other_object"
    stored = objects[known]
    if stored is None or not isinstance(node, ast.Call):
        return "invalid"
    if any(isinstance(value, ast.Starred) for value in node.args) or any(not keyword.arg for keyword in node.keywords):
        return "unwritable"  # what is spread has no name in an instruction
    positional = [ast.unparse(value) for value in node.args]
    keywords = {str(keyword.arg): ast.unparse(keyword.value) for keyword in node.keywords}
    try:
        bound = build_signature(stored).bind(*positional, **keywords).arguments
    except TypeError:
        return "invalid"
    kinds = {parameter: kind for parameter, kind, _ in stored}
    if not bound or any(kinds[parameter].startswith("VAR_") for parameter in bound):
        return "unwritable"  # nothing to quote in the instruction, or arguments without a parameter of their own
    if any(value == parameter for parameter, value in bound.items()):
        return "copies_signature"  # `shorten(text=text)` binds, and says nothing
    arguments = [(parameter, value) for parameter, value in bound.items()]
    signature, _, documentation = head.partition("\n")
    prompt = write_call_prompt(signature, documentation, arguments, rng.choice(CALL_REQUESTS))
    if asked_arguments(prompt) != arguments:
        return "unwritable"  # a value that the instruction cannot quote so that it is read back the same
    return prompt, write_call(name, [(parameter, kinds[parameter], value) for parameter, value in arguments])


def vary_quote(source: Pair, answer: str, rng: random.Random) -> tuple[str, str] | str:
    """Return (instruction, sentence) for a sampled sentence of the passage, or why there is none."""
    passage = read_passage(source.prompt)
    sentences = split_sentences(passage)
    written = collapse_spaces(unwrap_code(answer))
    if not written:
        return "unparsable"
    if written not in sentences:
        return "invalid"
    beginning = unique_beginning(written, sentences)
    if not beginning:
        return "unwritable"  # no beginning points at this sentence alone
    return f"{passage}\n\n{rng.choice(QUOTE_REQUESTS).format(beginning=beginning)}", written
