"""A call is valid, passes the prompt's checks, or is right: each stricter than the one before."""

from __future__ import annotations

import ast
import random
import time
from dataclasses import replace

import pytest
from call_samples import FILL, JOIN, OBJECTS, SHORTEN, call_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.data.documents import Pair
from genai_core.errors import DataError
from genai_core.feedback.verify import Verifier

VERIFIER = Verifier(OBJECTS)


def verdict(pair: Pair, answer: str | None) -> tuple[bool, bool, bool]:
    """(valid, passes the prompt's checks, right)."""
    blind, seen = VERIFIER.judge(pair, answer, use_gold=False), VERIFIER.judge(pair, answer, use_gold=True)
    assert blind.valid == seen.valid and not blind.uses_gold and seen.uses_gold
    assert blind.score in (0.0, 1.0) and seen.score in (0.0, 1.0)
    assert "\n" not in blind.text and len(blind.text) <= 240
    assert (blind.text == "") == (blind.score == 1.0) and (seen.text == "") == (seen.score == 1.0)
    assert len(blind.step_scores) == 5 and (min(blind.step_scores) == 1.0) == (blind.score == 1.0)
    return blind.valid, blind.score == 1.0, seen.score == 1.0


RIGHT, PASSES, VALID, NOT = (True, True, True), (True, True, False), (True, False, False), (False, False, False)

ANSWERS = [
    # forms of the right answer
    ("textwrap.shorten(text='blue sky', width=20)", RIGHT),
    ("textwrap.shorten(width=20, text='blue sky')", RIGHT),
    ("textwrap.shorten('blue sky', 20)", RIGHT),
    ("textwrap.shorten('blue sky', width=20)", RIGHT),
    ('  textwrap.shorten( text = "blue sky",width=20 )\n', RIGHT),
    ("textwrap.shorten(text='blue ' 'sky', width=0x14)", RIGHT),
    ("textwrap.shorten(*['blue sky', 20])", RIGHT),
    ("textwrap.shorten('blue sky', **{'width': 20})", RIGHT),
    ("(textwrap.shorten)(u'blue sky', (20))", RIGHT),
    ("```python\ntextwrap.shorten('blue sky', 20)\n```", RIGHT),
    ("Here it is:\n```\ntextwrap.shorten('blue sky', 20)\n```\nBye.", RIGHT),
    ("```py\ntextwrap.shorten('blue sky', 20)", RIGHT),
    ("`textwrap.shorten('blue sky', 20)`", RIGHT),
    ("textwrap.shorten('blue sky', 20)\nThis shortens the text.", RIGHT),
    ("textwrap.shorten(\n    text='blue sky',\n    width=20,\n)", RIGHT),
    ("textwrap.shorten('blue sky', 20)  # short", RIGHT),
    # the prompt's values in the wrong places
    ("textwrap.shorten(text=20, width='blue sky')", PASSES),
    ("textwrap.shorten('blue sky', 20, *[])", RIGHT),
    # valid, but not what the prompt asks
    ("len([])", VALID),
    ("builtins.len([])", VALID),
    ("textwrap.dedent('blue sky')", VALID),
    ("textwrap.shorten('blue sky', 20, placeholder='...')", VALID),
    ("textwrap.shorten('blue sky', 20.0)", VALID),
    ("textwrap.shorten('blue sky', 20 + 0)", VALID),
    ("textwrap.shorten('blue sky', -20)", VALID),
    ("textwrap.shorten('bluesky', 20)", VALID),
    ("textwrap.shorten(b'blue sky', 20)", VALID),
    ("textwrap.shorten(text, width)", VALID),
    ("textwrap.shorten(textwrap.shorten('blue sky', 20), 20)", VALID),
    # not valid
    ("", NOT),
    (None, NOT),
    ("   \n\n ", NOT),
    ("``````", NOT),
    ("textwrap.shorten", NOT),
    ("textwrap.shorten('blue sky', 20", NOT),
    ("textwrap.shorten('blue sky')", NOT),
    ("textwrap.shorten('blue sky', 20, 30)", NOT),
    ("textwrap.shorten('blue sky', 20, text='x')", NOT),
    ("textwrap.shorten(text='blue sky', text='blue sky', width=20)", NOT),
    ("textwrap.fill('blue sky', widht=20)", NOT),
    ("textwrap.shorten(text, width, **kwargs)", NOT),
    ("textwrap.shorten(*args)", NOT),
    ("textwrap.shorten(*['blue sky', *x])", NOT),
    ("textwrap.shorten(**{1: 2})", NOT),
    ("textwrap.shorten(**{**x})", NOT),
    ("textwrap.shortens('blue sky', 20)", NOT),
    ("shorten('blue sky', 20)", NOT),
    ("xtextwrap.shorten('blue sky', 20)", NOT),
    ("textwrap('blue sky', 20)", NOT),
    ("max(1, 2)", NOT),
    ("x = textwrap.shorten('blue sky', 20)", NOT),
    ("textwrap.shorten('blue sky', 20).upper()", NOT),
    ("textwrap.shorten('blue sky', 20)()", NOT),
    ("[textwrap.shorten('blue sky', 20)]", NOT),
    ("(lambda: 0)()", NOT),
    ("The call is textwrap.shorten('blue sky', 20).", NOT),
    ("def f(): pass", NOT),
    ("import os; os.remove('x')", NOT),
    ("textwrap.shorten('blue sky',\x00 20)", NOT),
    ("textwrap.shorten('\ud800', 20)", NOT),
    ("日本語", NOT),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS)
def test_parser_table(answer: str | None, expected: tuple[bool, bool, bool]):
    assert verdict(SHORTEN, answer) == expected


@pytest.mark.parametrize(
    ("pair", "answer", "expected"),
    [
        (FILL, "textwrap.fill('a', 5, indent='x')", RIGHT),
        (FILL, "textwrap.fill(indent='x', width=5, text='a')", RIGHT),
        (FILL, "textwrap.fill('a', 5, 'x')", NOT),
        (FILL, "textwrap.fill('a', 5)", VALID),
        (FILL, "textwrap.fill('x', 5, indent='a')", PASSES),
        (JOIN, "os.path.join('a', 'b', 'c')", (True, False, True)),  # the prompt of JOIN does not quote 'b' and 'c'
        (JOIN, "os.path.join('a', 'c', 'b')", VALID),
        (JOIN, "os.path.join('a', *('b', 'c'))", (True, False, True)),
    ],
)
def test_keyword_only_and_star_parameters(pair: Pair, answer: str, expected: tuple[bool, bool, bool]):
    assert verdict(pair, answer) == expected


@pytest.mark.parametrize(
    ("gold", "other"),
    [
        ("1", "1.0"),
        ("1", "True"),
        ("0", "False"),
        ("-5", "5"),
        ("[1, 2]", "(1, 2)"),
        ("None", "'None'"),
        ("'a'", "b'a'"),
    ],
)
def test_values_that_python_may_call_equal_are_different_answers(gold: str, other: str):
    pair = call_pair(f"math.sqrt({gold})", [("x", gold)], "math.sqrt(x, /)")
    assert verdict(pair, f"math.sqrt({gold})") == RIGHT
    assert verdict(pair, f"math.sqrt({other})") == VALID
    assert verdict(pair, f"math.sqrt(x={gold})") == NOT


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("textwrap.fill('a', widht=5)", "textwrap.fill has no parameter 'widht'; parameters: text, width, indent."),
        ("math.sqrt(x=4)", "math.sqrt takes 'x' by position only; parameters: x."),
        ("m.nothing(1)", "m.nothing: too many positional arguments; parameters: none."),
        (
            "textwrap.shorten('a')",
            "textwrap.shorten: missing a required argument: 'width'; parameters: text, width, **kwargs.",
        ),
        (
            "textwrap.shrink('a')",
            "There is no object 'textwrap.shrink' in the standard library. The documentation is about textwrap.shorten.",
        ),
        (
            "len([])",
            "The documentation is about textwrap.shorten, not len. The call lacks text = 'blue sky' and width = 20.",
        ),
        ("textwrap.shorten('blue sky', 3)", "The call lacks width = 20."),
        ("textwrap.shorten('blue sky', 20, x=1)", "The call has an argument that was not asked for."),
        ("max(1)", "The signature of max is not known, so the call cannot be checked."),
        ("textwrap.shorten(", "The answer does not parse as Python: '(' was never closed."),
    ],
)
def test_remarks_say_what_to_change(answer: str, text: str):
    assert VERIFIER.judge(SHORTEN, answer, use_gold=False).text == text


@settings(deadline=None)
@given(st.data())
def test_positional_and_keyword_forms_in_any_order_are_one_answer(data: st.DataObject):
    kinds = data.draw(
        st.lists(st.sampled_from(["POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"]), min_size=1, max_size=5)
    )
    kinds.sort(key=["POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"].index)
    stored = [[f"p{at}", kind, False] for at, kind in enumerate(kinds)]
    values = data.draw(
        st.lists(
            st.integers(-9, 9).map(repr) | st.text("ab'\"\\ ", max_size=3).map(repr),
            min_size=len(kinds),
            max_size=len(kinds),
        )
    )
    arguments = list(zip([row[0] for row in stored], kinds, values, strict=True))

    def write(by_position: int, order: list[int]) -> str:
        head = [value for _, _, value in arguments[:by_position]]
        return f"m.f({', '.join(head + [f'{arguments[at][0]}={arguments[at][2]}' for at in order])})"

    least, most = kinds.count("POSITIONAL_ONLY"), len(kinds) - kinds.count("KEYWORD_ONLY")
    gold = write(least, list(range(least, len(kinds))))
    by_position = data.draw(st.integers(least, most))
    other = write(by_position, data.draw(st.permutations(range(by_position, len(kinds)))))
    pair = call_pair(gold, [(name, value) for name, _, value in arguments], "m.f(x)")
    verifier = Verifier({"m.f": stored})
    assert verifier.judge(pair, other, use_gold=True).score == 1.0
    at = data.draw(st.integers(0, len(kinds) - 1))
    changed = other.replace(f"p{at}={values[at]}", f"p{at}=100", 1)
    if changed != other:
        assert verifier.judge(pair, changed, use_gold=True).score == 0.0


def mutations(pair: Pair, others: list[str], rng: random.Random) -> dict[str, str]:
    """Wrong answers made of the right one."""
    call = ast.parse(pair.completion, mode="eval").body
    assert isinstance(call, ast.Call)
    values = call.args + [keyword.value for keyword in call.keywords]
    name = ast.unparse(call.func)
    other = next(each for each in iter(lambda: rng.choice(others), None) if each != name)
    made = {
        "wrong name": pair.completion.replace(name, name + "x", 1),
        "other object": pair.completion.replace(name, other, 1),
        "no module": pair.completion.replace(name, name.rpartition(".")[2], 1) if "." in name else "x()",
        "extra keyword": f"{pair.completion[:-1]}, qqq=1)",
        "cut off": pair.completion[:-1],
        "only the name": name,
        "no arguments": f"{name}()",
    }
    if len(values) > 1 and ast.dump(values[0]) != ast.dump(values[1]):
        swapped = ast.parse(pair.completion, mode="eval").body
        assert isinstance(swapped, ast.Call)
        places = [(swapped.args, at) for at in range(len(swapped.args))] + list(swapped.keywords)
        for place, value in zip(places[:2], (values[1], values[0]), strict=True):
            if isinstance(place, ast.keyword):
                place.value = value
            else:
                place[0][place[1]] = value
        made["swapped values"] = ast.unparse(swapped)
    return made


def test_on_the_real_library_gold_is_right_and_mutations_are_not(stdlib):
    calls = [pair for pair in stdlib.pairs if pair.task == "call"]
    assert len(calls) > 500
    rng, names = random.Random(0), [pair.doc_id for pair in calls]
    for pair in calls:
        assert stdlib.verifier.judge(pair, pair.completion, use_gold=True).score == 1.0
        assert stdlib.verifier.judge(pair, pair.completion, use_gold=False).score == 1.0
    tried: dict[str, int] = {}
    for pair in calls[::5]:
        for kind, answer in mutations(pair, names, rng).items():
            assert stdlib.verifier.judge(pair, answer, use_gold=True).score == 0.0, (kind, pair.completion, answer)
            blind = stdlib.verifier.judge(pair, answer, use_gold=False).score
            assert blind == (1.0 if kind == "swapped values" else 0.0), (kind, pair.completion, answer)
            tried[kind] = tried.get(kind, 0) + 1
    assert len(tried) == 8 and min(tried.values()) > 20


@pytest.mark.parametrize("answer", [answer for answer, _ in ANSWERS])
def test_without_gold_the_gold_is_not_read(answer: str | None):
    told = VERIFIER.judge(SHORTEN, answer, use_gold=False)
    for check in ({"kind": "python_call"}, {"kind": "python_call", "gold": "len([])"}):
        blinded = replace(SHORTEN, completion="", doc_id="", pair_id="", check=check)
        assert VERIFIER.judge(blinded, answer, use_gold=False) == told


@pytest.mark.parametrize("gold", [None, "", 3, "not python (", "max(1)", "m.unknown()", "textwrap.shorten('a')"])
def test_a_pair_without_a_usable_gold_answer_is_an_error_not_a_score(gold: object):
    pair = replace(SHORTEN, check={"kind": "python_call", "gold": gold})
    with pytest.raises(DataError, match="cannot be used"):
        VERIFIER.judge(pair, "len([])", use_gold=True)


def test_prompts_that_say_nothing_are_not_held_against_an_answer():
    pair = Pair("p", "call", "g", "d", "Please call something.", "", {"kind": "python_call"})
    assert VERIFIER.judge(pair, "len([])", use_gold=False).score == 1.0
    assert VERIFIER.judge(pair, "lens([])", use_gold=False).score == 0.0


@pytest.mark.parametrize(
    "value", [r"'C:\Users\x'", "is", "[some words]", "(a b)", "01", "b'é'", "'" + "a" * 3000 + "'"]
)
def test_what_a_prompt_quotes_but_python_cannot_read_is_no_value(value: str):
    pair = Pair("p", "call", "g", "d", f"len(x)\nText.\n\nCall it with y = {value}.", "", {"kind": "python_call"})
    assert VERIFIER.judge(pair, "len([])", use_gold=False).score == 1.0
    asked = replace(pair, prompt=pair.prompt.replace("y =", "x = 5 and y ="))
    assert VERIFIER.judge(asked, "len([])", use_gold=False).text == "The call lacks x = 5."


GARBAGE = {
    "long name": "a" * 100_000,
    "brackets": "(" * 100_000,
    "call nest": "len(" * 1000 + ")" * 1000,
    "call nest, shorter": "len(" * 150 + ")" * 150,
    "minus": "-" * 1990 + "1",
    "attributes": "a" + ".a" * 900 + "()",
    "sum": "len(" + "+".join("a" * 900) + ")",
    "backticks": "`" * 100_000,
    "fences": "```\n" * 25_000,
    "lines": "\n".join("x" * 50 for _ in range(2000)),
    "spaces": " " * 100_000,
    "bytes": "".join(chr(at % 0x3000) for at in range(100_000)),
    "escapes": "len('" + "\\d" * 500 + "')",
    "many arguments": "len(" + ",".join("1" * 400) + ")",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_not_valid_and_fast(name: str):
    start = time.process_time()
    feedback = VERIFIER.judge(SHORTEN, GARBAGE[name], use_gold=False)
    assert time.process_time() - start < 1.0
    assert feedback.score == 0.0 and len(feedback.text) <= 240
    assert feedback.valid == (name == "escapes")


def test_deep_values_are_refused_at_a_depth_that_does_not_depend_on_the_stack():
    def depth(levels: int) -> bool:
        return VERIFIER.judge(SHORTEN, f"len({'[' * levels}{']' * levels})", use_gold=False).valid

    assert depth(20) and not depth(40)

    def deeper(frames: int) -> bool:
        return depth(20) if frames == 0 else deeper(frames - 1)

    assert deeper(500)
