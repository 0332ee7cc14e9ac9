"""Requests about objects of invented names: answerable from the prompt alone, and about nothing that exists."""

from __future__ import annotations

import random
from dataclasses import replace

from genai_core.augmentation.call_prompts import documented_names, write_call_prompt
from genai_core.data.documents import Pair
from genai_core.feedback.verify import Verifier
from genai_core.recursion.synthesis.invented_names import InventedNames
from genai_core.recursion.synthesis.requests import invent_requests

KNOWN = ("email.policy.EmailPolicy", "asyncio.StreamReader", "os.path.join_parts", "json.load_pairs", "len")
SIGNATURE = [["text", "POSITIONAL_OR_KEYWORD", False], ["width", "POSITIONAL_OR_KEYWORD", False]]
OBJECTS = dict.fromkeys(("textwrap.shorten_text", "textwrap.wrap_lines", "inspect.get_members"), SIGNATURE)


def pair(name: str, documentation: str = "Cut a text.") -> Pair:
    gold = f"{name}(text='blue sky', width=20)"
    prompt = write_call_prompt(f"{name}(text, width)", documentation, [("text", "'blue sky'"), ("width", "20")])
    return Pair(f"call:{name}", "call", name, name, prompt, gold, {"kind": "python_call", "gold": gold})


POOL = [pair(name) for name in OBJECTS]


def test_names_are_new_made_of_known_words_and_of_the_same_style() -> None:
    names = InventedNames(KNOWN, {*KNOWN, "json.load_parts"})
    functions = {names.draw("json.dumps", random.Random(seed)) for seed in range(300)}
    classes = {names.draw("json.JSONDecoder", random.Random(seed)) for seed in range(300)}
    places = ("email.policy", "asyncio", "os.path", "json", "")
    every = {f"{place}.{last}".lstrip(".") for place in places for last in ("join_parts", "join_pairs", "load_parts")}
    every |= {f"{place}.load_pairs".lstrip(".") for place in places}
    assert functions == every - {*KNOWN, "json.load_parts"}
    assert {name.rpartition(".")[2] for name in classes if name} >= {"EmailReader", "StreamPolicy"}
    assert not classes & set(KNOWN)


def test_too_few_words_invent_nothing() -> None:
    assert InventedNames(["len", "abs"], ()).draw("len", random.Random(0)) is None
    assert InventedNames(["json.dump_all"], {"json.dump_all"}).draw("x", random.Random(0)) is None, "only itself"


def test_an_invented_request_can_be_answered_from_its_prompt_alone() -> None:
    asked, invented = invent_requests(POOL, OBJECTS, seed=0)
    assert len({each.pair_id for each in asked}) == len(asked) == len(invented) == 3
    verifier = Verifier({**OBJECTS, **invented})
    for source, each in zip(POOL, asked, strict=True):
        [name] = documented_names(each.prompt)
        assert name in invented and name not in OBJECTS
        assert verifier.judge(each, each.completion, use_gold=False).score == 1.0
        assert verifier.judge(each, each.completion, use_gold=True).score == 1.0
        remembered = each.completion.replace(name, source.doc_id)
        assert verifier.judge(each, remembered, use_gold=False).score < 1.0, "the known name is not the asked one"
        assert (each.doc_id, each.task) == (source.doc_id, source.task)


def test_the_documentation_follows_the_name() -> None:
    known = pair("textwrap.shorten_text", "textwrap.shorten_text cuts; see shorten_texts and shorten_text.")
    [asked, *_], [name, *_] = invent_requests([known, *POOL[1:]], OBJECTS, seed=1)
    last = name.rpartition(".")[2]
    assert asked.prompt.splitlines()[1] == f"{name} cuts; see shorten_texts and {last}."


def test_the_same_again_and_another_seed_another_name() -> None:
    assert invent_requests(POOL, OBJECTS, seed=0) == invent_requests(POOL, OBJECTS, seed=0)
    drawn = {name for seed in range(8) for name in invent_requests(POOL, OBJECTS, seed)[1]}
    assert len(drawn) > 5


def test_what_has_no_name_or_no_signature_is_asked_as_it_is() -> None:
    quote = Pair("q", "quote", "d", "d", "The dog ran.\n\nWrite the sentence that begins with: The", "The dog ran.", {})
    closed = replace(POOL[0], pair_id="name", task="name", prompt="Which object cuts a text?")
    unknown = pair("os.strange_one")
    asked, invented = invent_requests([quote, closed, unknown], OBJECTS, seed=0)
    assert [each.prompt for each in asked] == [quote.prompt, closed.prompt, unknown.prompt]
    assert invented == {}
