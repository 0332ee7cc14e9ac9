"""Requests and samples into pairs, with canned answers: what is taken is right by construction, what is not has its reason."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from genai_core.augmentation.call_prompts import write_call_prompt
from genai_core.data.documents import Pair
from genai_core.feedback.types import Feedback
from genai_core.feedback.verify import Verifier
from genai_core.generation.driver import drive
from genai_core.generation.types import Completion, Request
from genai_core.recursion.synthesis.requests import can_be_varied, write_requests
from genai_core.recursion.synthesis.selection import select
from genai_core.recursion.synthesis.vary import vary, vary_call

OBJECTS = {
    "textwrap.shorten": [
        ["text", "POSITIONAL_OR_KEYWORD", False],
        ["width", "POSITIONAL_OR_KEYWORD", False],
        ["kwargs", "VAR_KEYWORD", False],
    ],
    "textwrap.indent": [["text", "POSITIONAL_OR_KEYWORD", False], ["prefix", "POSITIONAL_OR_KEYWORD", False]],
    "math.pow": [["x", "POSITIONAL_ONLY", False], ["y", "POSITIONAL_ONLY", False]],
    "os.strange": None,
    "builtins.len": [["obj", "POSITIONAL_ONLY", False]],
}
DOCUMENTATION = "Collapse and truncate the given text to fit in the given width."


def call_pair(name: str, signature: str, arguments: list[tuple[str, str]], gold: str, number: int = 0) -> Pair:
    return Pair(
        pair_id=f"call:{name}:{number}",
        task="call",
        group=name.partition(".")[0],
        doc_id=name,
        prompt=write_call_prompt(signature, DOCUMENTATION, arguments),
        completion=gold,
        check={"kind": "python_call", "gold": gold},
    )


SHORTEN = call_pair(
    "textwrap.shorten",
    "textwrap.shorten(text, width, **kwargs)",
    [("text", "'blue sky'"), ("width", "20")],
    "textwrap.shorten(text='blue sky', width=20)",
)
POW = call_pair("math.pow", "math.pow(x, y, /)", [("x", "2"), ("y", "3")], "math.pow(2, 3)")
PASSAGE = "The red dog ran home again. It was very late that evening. Nobody saw it come back again."
QUOTE = Pair(
    "quote:d:0",
    "quote",
    "d",
    "d",
    f"{PASSAGE}\n\nWrite the sentence that begins with: The red dog",
    "The red dog ran home again.",
    {"kind": "quote", "gold": "The red dog ran home again."},
)
NAME = Pair("name:x", "name", "x", "x", "Which object sorts?", "sorted", {"kind": "python_name", "gold": "sorted"})


def answer_with(texts: dict[str, list[str]], *, cut: bool = False):
    """Return what completes requests with canned answers, by pair and sample number."""

    def complete(requests: list[Request]) -> list[Completion]:
        found = []
        for request in requests:
            pair_id, _, sample = request.row_id.rpartition("/")
            text = texts[pair_id][int(sample.rpartition(".")[2])]
            found.append(Completion(request.row_id, text, (1,), 0.0, "length" if cut else "stop", 9))
        return found

    return complete


def synthesize(pool: list[Pair], texts: dict[str, list[str]], *, cut: bool = False, generation: int = 1):
    """Return what becomes of canned answers to the pairs' own requests."""
    asked = [
        replace(pair, pair_id=f"{pair.pair_id}/g{generation}.{index}")
        for pair in pool
        for index in range(len(texts[pair.pair_id]))
    ]
    [samples] = drive([vary(asked, generation, OBJECTS, seed=0)], answer_with(texts, cut=cut))
    return samples


def test_a_valid_call_defines_its_own_instruction() -> None:
    [sample] = synthesize([SHORTEN], {SHORTEN.pair_id: ["textwrap.shorten('red', 7)"]})
    pair = sample.pair
    assert pair is not None
    assert pair.completion == "textwrap.shorten(text='red', width=7)", "canonical style, whatever was sampled"
    assert pair.prompt.startswith(f"textwrap.shorten(text, width, **kwargs)\n{DOCUMENTATION}\n\n")
    assert "text = 'red' and width = 7" in pair.prompt
    assert pair.check == {"kind": "python_call", "gold": pair.completion}
    assert (pair.origin, pair.doc_id, pair.group) == ("synthetic-g1", SHORTEN.doc_id, SHORTEN.group)
    judged = Verifier(OBJECTS).judge(pair, pair.completion, use_gold=True)
    assert judged.score == 1.0
    wrong = Verifier(OBJECTS).judge(SHORTEN, pair.completion, use_gold=True)
    assert wrong.score == 0.0, "it was not what the real prompt asked for"


def test_the_verifier_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What our own template made is not believed: a pair that the verifier does not pass is rejected."""
    asked: list[bool] = []

    def refuse(self: Verifier, pair: Pair, answer: str, *, use_gold: bool) -> Feedback:
        asked.append(use_gold)
        return Feedback(0.8, "not quite", source="test")

    monkeypatch.setattr(Verifier, "judge", refuse)
    [sample] = synthesize([SHORTEN], {SHORTEN.pair_id: ["textwrap.shorten('red', 7)"]})
    assert (sample.pair, sample.reason, asked) == (None, "invalid", [False])


def test_positional_only_stays_positional() -> None:
    [sample] = synthesize([POW], {POW.pair_id: ["math.pow(9, 0.5)"]})
    assert sample.pair is not None
    assert sample.pair.completion == "math.pow(9, 0.5)"
    assert "x = 9 and y = 0.5" in sample.pair.prompt


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "unparsable"),
        ("textwrap.shorten(text='red'", "unparsable"),
        ("a shorter text", "unparsable"),
        ("textwrap.indent(text='red', prefix='>')", "other_object"),
        ("textwrap.nothing(text='red')", "other_object"),
        ("len([])", "other_object"),
        ("textwrap.shorten(text='red')", "invalid"),
        ("textwrap.shorten('a', 1, 2)", "invalid"),
        ("textwrap.shorten(text='red', width=7, placeholder='..')", "unwritable"),
        ("textwrap.shorten(*['red', 7])", "unwritable"),
        ("textwrap.shorten(text=lambda: 1, width=7)", "unwritable"),
        ("textwrap.shorten(text=text, width=width)", "copies_signature"),
    ],
)
def test_every_rejected_call_has_its_reason(answer: str, reason: str) -> None:
    [sample] = synthesize([SHORTEN], {SHORTEN.pair_id: [answer]})
    assert (sample.pair, sample.reason) == (None, reason)


def test_what_answers_the_request_is_kept_with_it() -> None:
    [sample] = synthesize([SHORTEN], {SHORTEN.pair_id: ["textwrap.shorten(width=20, text='blue sky')"]})
    assert sample.pair is not None
    assert (sample.pair.prompt, sample.pair.completion) == (SHORTEN.prompt, SHORTEN.completion)
    assert selected(["textwrap.shorten(width=20, text='blue sky')"]).stats()["rejected"] == {"in_real_data": 1}


def test_a_cut_off_sample_is_not_judged() -> None:
    [sample] = synthesize([SHORTEN], {SHORTEN.pair_id: ["textwrap.shorten('red', 7)"]}, cut=True)
    assert sample.reason == "truncated"


def test_an_unknown_signature_proves_nothing() -> None:
    pair = call_pair("os.strange", "os.strange(x)", [("x", "1")], "os.strange(x=1)")
    assert vary_call(pair, "os.strange(x=2)", OBJECTS, random.Random(0)) == "invalid"


def test_another_sentence_of_the_passage_is_asked_for_itself() -> None:
    samples = synthesize(
        [QUOTE],
        {
            QUOTE.pair_id: [
                "It was very late that evening. ",
                "The red dog ran home again.",
                "It was very",
                "Nobody saw it  come back again.",
            ]
        },
    )
    assert [sample.reason for sample in samples] == ["", "", "invalid", ""]
    assert samples[1].pair is not None and samples[1].pair.prompt == QUOTE.prompt
    pair = samples[3].pair
    assert pair is not None
    assert pair.completion == "Nobody saw it come back again."
    assert pair.prompt.startswith(f"{PASSAGE}\n\n")
    assert pair.prompt.endswith("begins with: Nobody saw it")
    assert Verifier().judge(pair, pair.completion, use_gold=True).score == 1.0


def test_the_pool_is_real_and_open_book() -> None:
    assert can_be_varied(SHORTEN)
    assert can_be_varied(QUOTE)
    assert not can_be_varied(NAME), "a name that merely exists would be learned as the right one"
    assert not can_be_varied(replace(SHORTEN, origin="synthetic-g1"))


def test_gold_in_the_check_is_never_read() -> None:
    blind = replace(SHORTEN, check={"kind": "python_call"})
    texts = {SHORTEN.pair_id: ["textwrap.shorten('red', 7)", "textwrap.shorten('red')"]}
    assert [s.reason for s in synthesize([blind], texts)] == [s.reason for s in synthesize([SHORTEN], texts)]


def test_requests_ask_what_their_pair_does_not() -> None:
    indent = call_pair(
        "textwrap.indent",
        "textwrap.indent(text, prefix)",
        [("text", "'a b c'"), ("prefix", "'main'")],
        "textwrap.indent(text='a b c', prefix='main')",
    )
    pool = [SHORTEN, POW, indent, QUOTE]
    asked = write_requests(pool, 8, 1, OBJECTS, seed=0)
    assert len({pair.pair_id for pair in asked}) == len(asked) == 32
    for position, pair in enumerate(asked):
        source = pool[position // 8]
        assert pair.completion != source.completion
        assert (pair.doc_id, pair.task, pair.check["gold"]) == (source.doc_id, source.task, pair.completion)
        assert pair.prompt.rpartition("\n\n")[0] == source.prompt.rpartition("\n\n")[0], "the document is the same"
        assert Verifier(OBJECTS).judge(pair, pair.completion, use_gold=False).score == 1.0
        assert Verifier(OBJECTS).judge(pair, pair.completion, use_gold=True).score == 1.0
    assert len({pair.completion for pair in asked if pair.doc_id == indent.doc_id}) > 4, "drawn values differ"


def test_a_document_that_allows_one_request_is_asked_that() -> None:
    strange = call_pair("os.strange", "os.strange(x)", [("x", "1")], "os.strange(x=1)")
    lone = replace(QUOTE, prompt="The red dog ran home again.\n\nWrite the sentence that begins with: The red dog")
    for pair in (strange, lone):
        [asked] = write_requests([pair], 1, 1, OBJECTS, seed=0)
        assert (asked.prompt, asked.completion) == (pair.prompt, pair.completion)


def test_each_generation_asks_anew_and_the_same_again() -> None:
    first, again, second = (write_requests([SHORTEN], 8, generation, OBJECTS, 0) for generation in (1, 1, 2))
    assert first == again
    assert not {pair.pair_id for pair in first} & {pair.pair_id for pair in second}
    assert [pair.completion for pair in first] != [pair.completion for pair in second]
    requests = next(vary(first, 1, OBJECTS, 0))
    assert [(request.row_id, request.prompt) for request in requests] == [(p.pair_id, p.prompt) for p in first]


def selected(answers: list[str], *, real=(), earlier=(), measured=()):
    samples = synthesize([SHORTEN], {SHORTEN.pair_id: answers})
    return select(samples, [SHORTEN, *real], list(earlier), list(measured))


def test_repeats_are_counted_where_they_were_seen_first() -> None:
    new = "textwrap.shorten(text='red', width=7)"
    known = replace(SHORTEN, completion=new)
    assert [sample.reason for sample in selected([new, "textwrap.shorten('red', 7)"]).samples] == ["", "duplicate"]
    assert [sample.reason for sample in selected([new], real=[known]).samples] == ["in_real_data"]
    assert [sample.reason for sample in selected([new], earlier=[known]).samples] == ["in_earlier_generation"]


def test_what_is_measured_is_never_learned() -> None:
    new = "textwrap.shorten(text='one two three four five six', width=7)"
    [sample] = synthesize([SHORTEN], {SHORTEN.pair_id: [new]})
    assert sample.pair is not None
    heldout = replace(SHORTEN, pair_id="h", doc_id="other", completion=new, prompt="Something else entirely is asked.")
    same_prompt = replace(heldout, completion="f()", prompt=sample.pair.prompt.upper())
    far = replace(heldout, completion="g(1)", prompt="Nothing of it.")
    assert selected([new], measured=[heldout]).stats()["rejected"] == {"contaminated": 1}
    assert selected([new], measured=[same_prompt]).stats()["rejected"] == {"contaminated": 1}
    assert selected([new], measured=[far]).stats()["accepted"] == 1


def test_a_shared_thirteen_gram_is_contamination_twelve_words_are_not() -> None:
    [sample] = synthesize([SHORTEN], {SHORTEN.pair_id: ["textwrap.shorten('red', 7)"]})
    assert sample.pair is not None
    spoken = f"{sample.pair.prompt} {sample.pair.completion}".replace("'", "").split()
    for length, fate in ((22, {"contaminated": 1}), (5, {})):
        asked = replace(SHORTEN, pair_id="h", prompt="Words before it. " * 3, completion=" ".join(spoken[-length:]))
        stats = select([sample], [], [], [asked]).stats()
        assert stats["rejected"] == fate, length


def test_stats_add_up_and_samples_can_be_looked_at() -> None:
    answers = ["textwrap.shorten('red', 7)", "nonsense", "textwrap.shorten('red', 7)", "more nonsense"]
    selection = selected(answers)
    stats = selection.stats()
    assert stats["raw"] == stats["accepted"] + sum(stats["rejected"].values()) == 4
    assert stats["acceptance_rate"] == 0.25
    assert stats["duplicate_share"] == 0.0, "the same answer to the same prompt is no collapse"
    assert Counter({reason: len(rows) for reason, rows in selection.shown().items()}) == {
        "accepted": 1,
        "unparsable": 2,
        "duplicate": 1,
    }
    two = synthesize([SHORTEN, POW], {SHORTEN.pair_id: ["len([])"], POW.pair_id: ["len([])"]})
    assert select(two, [], [], []).stats()["duplicate_share"] == 0.5
