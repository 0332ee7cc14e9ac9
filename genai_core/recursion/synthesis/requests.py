"""What a model is asked when it writes synthetic data: new requests about the documents of real training pairs.

A model answers the pairs it was trained on as it learned them, and learns nothing from that. So each sample is asked
something that its document allows and no pair need ask: other values for the same function, another sentence of the same
passage; or the same of an object that has an invented name, which no memory helps with. What it asks rests on the
prompt, never on the pair's answer. The documents come from a fixed pool of real pairs, never from synthetic ones, and
only from tasks whose prompts hold what decides the answer (`is_open_book`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from genai_core.augmentation.call_prompts import REQUESTS as CALL_REQUESTS
from genai_core.augmentation.call_prompts import (
    asked_arguments,
    documented_names,
    documented_signatures,
    write_call_prompt,
)
from genai_core.augmentation.pydocs_pairs import ANSWER_CHARS, draw_arguments, read_parameters, write_call
from genai_core.augmentation.quote_pairs import REQUESTS as QUOTE_REQUESTS
from genai_core.augmentation.quote_pairs import read_beginning, read_passage, unique_beginning
from genai_core.augmentation.sentences import split_sentences
from genai_core.data.documents import Pair
from genai_core.feedback.verifiers.python_call import resolve_name
from genai_core.feedback.verify import is_open_book
from genai_core.recursion.synthesis.invented_names import InventedNames

_DRAWS = 8  # a draw can be too long, or what the pair asks already


def can_be_varied(pair: Pair) -> bool:
    """Return whether a pair may be in the pool: real, and its answers can be checked without gold."""
    return pair.origin == "real" and is_open_book(pair)


def write_requests(
    pool: Sequence[Pair], samples_per_prompt: int, generation: int, objects: Mapping[str, Any], seed: int
) -> list[Pair]:
    """Return so many requests for every pair of the pool, each with an id of its own and the answer it asks for.

    A request depends on (seed, its pair, generation, its index) alone. Where the document allows no other one (its only
    sentence, no parameter to name) it is the pair's own: the answer may still differ.
    """
    asked = []
    for pair in pool:
        for index in range(samples_per_prompt):
            row_id = f"{pair.pair_id}/g{generation}.{index}"
            rng = random.Random(f"{seed}/request/{row_id}")
            found = _another_call(pair, objects, rng) if pair.task == "call" else _another_quote(pair, rng)
            prompt, answer = found or (pair.prompt, pair.completion)
            asked.append(_ask(pair, row_id, prompt, answer))
    return asked


def invent_requests(pool: Sequence[Pair], objects: Mapping[str, Any], seed: int) -> tuple[list[Pair], dict[str, Any]]:
    """Return a request for every pair of the pool about its object under an invented name, and those names' signatures.

    Only calls have a name; what has none, or could not be renamed, is asked as `write_requests` asks it.
    """
    names = InventedNames((name for pair in pool for name in documented_names(pair.prompt)), objects)
    asked: list[Pair] = []
    invented: dict[str, Any] = {}
    for pair in pool:
        row_id = f"{pair.pair_id}/invented"
        rng = random.Random(f"{seed}/request/{row_id}")
        renamed = _rename(pair, objects, names, rng)
        found = renamed and _another_call(renamed[0], renamed[1], rng)
        if renamed and found:
            invented |= renamed[1]
            asked.append(_ask(pair, row_id, *found))
        else:
            asked += write_requests([pair], 1, 0, objects, seed)
    return asked, invented


def _ask(pair: Pair, row_id: str, prompt: str, answer: str) -> Pair:
    """Return the request; where documents stand before the pair's question (data.retrieval), its check says the new question."""
    check = {**pair.check, "gold": answer}
    if "question" in check and prompt != pair.prompt:
        kept, gap, _ = check["question"].rpartition("\n\n")  # what says what is meant, before the paragraph that asks
        check["question"] = kept + gap + prompt.rpartition("\n\n")[2]
    return replace(pair, pair_id=row_id, prompt=prompt, completion=answer, check=check)


def _rename(
    pair: Pair, objects: Mapping[str, Any], names: InventedNames, rng: random.Random
) -> tuple[Pair, dict[str, Any]] | None:
    """Return the pair with an invented name for its only documented object, in its documentation too, and the signature."""
    documented = documented_names(pair.prompt) if pair.task == "call" else []
    known = resolve_name(documented[0], objects) if len(documented) == 1 else None
    name = names.draw(documented[0], rng) if known else None
    if known is None or name is None:
        return None
    head, gap, request = pair.prompt.rpartition("\n\n")
    signature, line, documentation = head.removeprefix(documented[0]).partition("\n")
    own, new = documented[0].rpartition(".")[2], name.rpartition(".")[2]
    documentation = re.sub(rf"\b{re.escape(own)}\b", new, documentation.replace(documented[0], name))
    return replace(pair, prompt=name + signature + line + documentation + gap + request), {name: objects[known]}


def _another_call(pair: Pair, objects: Mapping[str, Any], rng: random.Random) -> tuple[str, str] | None:
    """Return (prompt, call) with newly drawn values for a documented object."""
    signatures = documented_signatures(pair.prompt)
    if not signatures:
        return None
    signature = rng.choice(signatures)
    name = signature.partition("(")[0]
    known = resolve_name(name, objects)
    parameters = read_parameters(objects[known] or () if known else (), signature)
    if not parameters:
        return None
    asked = asked_arguments(pair.prompt)
    head, _, documentation = pair.prompt.rpartition("\n\n")[0].partition("\n")
    for _ in range(_DRAWS):
        drawn = draw_arguments(parameters, rng)
        arguments = [(parameter.name, value) for parameter, value in drawn]
        prompt = write_call_prompt(head, documentation, arguments, rng.choice(CALL_REQUESTS))
        call = write_call(name, [(parameter.name, parameter.kind, value) for parameter, value in drawn])
        if arguments != asked and len(call) <= ANSWER_CHARS and asked_arguments(prompt) == arguments:
            return prompt, call
    return None


def _another_quote(pair: Pair, rng: random.Random) -> tuple[str, str] | None:
    """Return (prompt, sentence) for another sentence of the passage."""
    passage, asked = read_passage(pair.prompt), read_beginning(pair.prompt)
    sentences = split_sentences(passage)
    others = [
        (sentence, beginning)
        for sentence in sentences
        if not sentence.startswith(asked) and (beginning := unique_beginning(sentence, sentences))
    ]
    if not others:
        return None
    sentence, beginning = rng.choice(others)
    return f"{passage}\n\n{rng.choice(QUOTE_REQUESTS).format(beginning=beginning)}", sentence
