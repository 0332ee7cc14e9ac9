"""Symbol tuning's prompts: pools apart, maps fresh, no way to the answer but through the exemplars (objectives.md 7.6)."""

import gzip
import json
import math
import os
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from genai_core.augmentation.pairs import build_pairs
from genai_core.augmentation.symbol_tuning import LAYOUTS, SETTINGS, symbol_pairs
from genai_core.augmentation.symbols import RANGES, draw_symbols, write_symbol
from genai_core.config.data import AugmentationConfig, SymbolPairs
from genai_core.data.documents import Document
from genai_core.data.templates import render_example
from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import DataError

DATA = Path(os.environ.get("GENAI_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CATEGORIES = ("integers", "combinations", "words")
SYMBOLS = SymbolPairs(text_words=12, prompt_words=2000)


def rows(dataset: str, labels: list[str], count: int) -> list[Document]:
    """Return texts whose class no word of them tells more than any other text's."""
    rng = random.Random(dataset)
    made = []
    for number in range(count):
        text = " ".join(f"{rng.choice('mnpq')}{rng.randrange(1000)}x" for _ in range(rng.randint(3, 8)))
        fields = {"text": text, "label": labels[number % len(labels)]}
        made.append(Document(f"{dataset}.jsonl:{number}", f"{dataset}:{number}", "", text, meta={"fields": fields}))
    return made


TWO = rows("two", ["good", "bad"], 400)
FIVE = rows("five", ["red", "green", "blue", "grey", "pink"], 300)
TRAIN = symbol_pairs(TWO + FIVE, SYMBOLS, 0, held_out=False)
HELD_OUT = symbol_pairs(TWO + FIVE, SYMBOLS, 0, held_out=True)


def every(category, pool):
    return {write_symbol(category, pool, number) for number in RANGES[category, pool]}


def test_pools_are_as_large_as_said_and_apart_whatever_the_case_of_letters():
    sizes = {key: len(every(*key)) for key in RANGES}
    assert sizes == {key: len(numbers) for key, numbers in RANGES.items()}, "two numbers share a symbol"
    train = [symbol.casefold() for one in CATEGORIES for symbol in every(one, "training")]
    held_out = {symbol.casefold() for one in CATEGORIES for symbol in every(one, "held_out")}
    assert len(set(train)) == len(train)
    assert not held_out & set(train)


def test_combinations_are_those_of_the_papers_generator():
    ends = [write_symbol("combinations", pool, number) for pool, number in (
        ("training", 1), ("training", 10_000), ("held_out", 10_001), ("held_out", 100_000)
    )]  # fmt: skip
    assert ends == ["A", "NTP", "NTQ", "EQXD"]


def test_categories_are_equally_likely_and_what_is_taken_is_not_drawn():
    rng = random.Random(0)
    drawn = [draw_symbols(2, "training", CATEGORIES, {"a", "7"}, rng) for _ in range(3000)]
    counts = Counter(category for pair in drawn for _, category in pair)
    spread = math.sqrt(6000 * (1 / 3) * (2 / 3))
    assert all(abs(count - 2000) < 4 * spread for count in counts.values())
    letters = [draw_symbols(1, "training", ("combinations",), {"a", "b"}, rng)[0][0] for _ in range(20000)]
    assert not {"A", "B"} & set(letters)
    assert all(len({symbol for symbol, _ in pair}) == 2 for pair in drawn)


def test_every_prompt_has_its_own_map_classes_and_exemplars():
    assert len(TRAIN) == 700
    for pair in TRAIN:
        check = pair.check
        assert pair.task == "symbols"
        assert len(set(check["map"].values())) == len(check["map"]) == (2 if check["dataset"] == "two.jsonl" else 4)
        assert pair.completion == check["gold"] == check["map"][check["label"]]
        assert sorted(check["candidates"]) == sorted(check["map"].values())
        assert pair.doc_id not in check["exemplars"]
        assert 2 <= check["per_class"] <= 10
        assert len(check["exemplars"]) == check["per_class"] * len(check["map"]) == len(set(check["exemplars"]))
    maps = [json.dumps(pair.check["map"], sort_keys=True) for pair in TRAIN]
    assert len(set(maps)) == len(maps)
    assert {pair.check["layout"] for pair in TRAIN} == set(range(len(LAYOUTS)))
    assert {pair.check["per_class"] for pair in TRAIN} == set(range(2, 11))


def test_a_symbol_is_no_label_and_in_no_text_and_nothing_instructs():
    texts = {document.doc_id: document.text for document in TWO + FIVE}
    natural = {"good", "bad", "red", "green", "blue", "grey", "pink"}
    for pair in TRAIN:
        shown = " ".join(texts[name] for name in (pair.doc_id, *pair.check["exemplars"])).casefold().split()
        for symbol in pair.check["candidates"]:
            assert symbol.casefold() not in natural
            assert symbol.casefold() not in shown
        assert not natural & set(pair.prompt.casefold().split())
        blocks = pair.prompt.split("\n\n")
        assert len(blocks) == len(pair.check["exemplars"]) + 1


def in_order(pair):
    """Return the labels of the exemplars, as they stand."""
    return [block.rpartition("\n")[2] for block in pair.prompt.split("\n\n")[:-1]]


@pytest.mark.parametrize("pairs", [TRAIN, [p for p in HELD_OUT if p.task == "symbols"]], ids=["train", "held out"])
def test_no_shortcut_beats_chance(pairs):
    """The last label, the first, the commonest, that of the exemplar nearest in length."""
    texts = {document.doc_id: document.text for document in TWO + FIVE}
    two = [pair for pair in pairs if pair.check["dataset"] == "two.jsonl"]
    guesses = {
        "last": lambda pair: in_order(pair)[-1],
        "first": lambda pair: in_order(pair)[0],
        "commonest": lambda pair: Counter(in_order(pair)).most_common(1)[0][0],
        "nearest in length": lambda pair: min(
            zip(pair.check["exemplars"], in_order(pair), strict=True),
            key=lambda one: abs(len(texts[one[0]]) - len(texts[pair.doc_id])),
        )[1],
        "first of the candidates": lambda pair: pair.check["candidates"][0],
        "first by the alphabet": lambda pair: min(pair.check["candidates"]),
    }
    spread = math.sqrt(0.25 / len(two))
    for name, guess in guesses.items():
        share = sum(guess(pair) == pair.completion for pair in two) / len(two)
        assert abs(share - 0.5) < 4 * spread, (name, share)


def test_the_order_of_classes_is_shuffled():
    changes = [sum(a != b for a, b in pairwise(in_order(pair))) / (len(in_order(pair)) - 1) for pair in TRAIN[300:]]
    assert 0.45 < sum(changes) / len(changes) < 0.65  # 1 if they took turns, 1 / (2 k - 1) if sorted


def test_held_out_prompts_come_in_every_setting_with_the_same_exemplars():
    by_query = {}
    for pair in HELD_OUT:
        by_query.setdefault((pair.check["dataset"], pair.doc_id), {})[pair.task] = pair
    assert all(set(SETTINGS) <= set(found) for found in by_query.values())
    assert {("flipped" in found) for (name, _), found in by_query.items() if name == "two.jsonl"} == {True}
    assert {("flipped" in found) for (name, _), found in by_query.items() if name == "five.jsonl"} == {False}
    for found in by_query.values():
        assert len({tuple(pair.check["exemplars"]) for pair in found.values()}) == 1
        assert all(pair.check["per_class"] == 4 for pair in found.values())
        symbols, labels = found["symbols"], found["labels"]
        assert found["symbols_instructed"].prompt.endswith(symbols.prompt)
        assert found["symbols_instructed"].prompt.startswith("Is it ")
        assert labels.completion == labels.check["label"]
        if "flipped" in found:
            assert found["flipped"].completion == next(one for one in ("good", "bad") if one != labels.completion)
            swapped = [{"good": "bad", "bad": "good"}[label] for label in in_order(labels)]
            assert in_order(found["flipped"]) == swapped
    held_out = {symbol.casefold() for one in CATEGORIES for symbol in every(one, "held_out")}
    assert all(pair.completion.casefold() in held_out for pair in HELD_OUT if pair.task.startswith("symbols"))


def test_a_prompt_is_the_same_again_and_another_seed_gives_others():
    assert symbol_pairs(TWO + FIVE, SYMBOLS, 0, held_out=False) == TRAIN
    other = symbol_pairs(TWO + FIVE, SYMBOLS, 1, held_out=False)
    assert not {pair.prompt for pair in other} & {pair.prompt for pair in TRAIN}


def test_natural_labels_are_the_same_prompts_under_their_own_names():
    natural = symbol_pairs(TWO, SYMBOLS.model_copy(update={"labels": "natural"}), 0, held_out=False)
    for own, symbol in zip(natural, symbol_pairs(TWO, SYMBOLS, 0, held_out=False), strict=True):
        assert own.check["exemplars"] == symbol.check["exemplars"]
        assert own.completion == own.check["label"] == symbol.check["label"]


def test_exemplars_become_fewer_until_a_prompt_fits_and_long_texts_are_left_out():
    tight = symbol_pairs(TWO, SymbolPairs(text_words=6, prompt_words=60), 0, held_out=False)
    texts = {document.doc_id: document.text for document in TWO}
    used = {name for pair in tight for name in (pair.doc_id, *pair.check["exemplars"])}
    assert max(len(texts[name].split()) for name in used) <= 6
    assert max(len(pair.prompt.split()) for pair in tight) <= 60
    assert {pair.check["per_class"] for pair in tight} <= {2, 3, 4}
    with pytest.raises(DataError, match=r"none of the 400 rows gives a prompt.*'two.jsonl' with 2 classes"):
        symbol_pairs(TWO, SymbolPairs(prompt_words=20), 0, held_out=False)


def test_a_symbol_has_the_same_tokens_in_an_exemplar_and_as_the_answer():
    tokenizer = train_tokenizer([pair.prompt for pair in TRAIN], 600, 512)
    for pair in TRAIN[::25]:
        ids, mask = render_example(tokenizer, pair.prompt, pair.completion)
        answer = [token for token, is_trained in zip(ids, mask, strict=True) if is_trained]
        symbol = tokenizer(pair.completion, add_special_tokens=False)["input_ids"]
        assert answer == [*symbol, tokenizer.convert_tokens_to_ids("<|end|>")]
        places = [at for at in range(len(ids)) if ids[at : at + len(symbol)] == symbol]
        assert len(places) >= pair.check["per_class"] + 1


def test_pydocs_are_two_datasets_and_own_rows_may_name_theirs():
    objects = [
        Document(
            f"m{n % 7}.f{n}", f"m{n % 7}", "", "t",
            meta={"object": f"m{n % 7}.f{n}", "kind": "class" if n % 3 else "function", "module": f"m{n % 7}",
                  "summary": f"Return what {n} makes of it."},
        )
        for n in range(70)
    ]  # fmt: skip
    pairs = build_pairs(objects, SymbolPairs(), 0, {}, held_out=False)
    assert Counter(pair.check["dataset"] for pair in pairs) == {"kind": 70, "module": 70}
    named = [
        Document(f"a:{n}", "g", "", "t", meta={"fields": {"q": f"text {n}", "y": n % 2, "set": f"s{n // 20}"}})
        for n in range(40)
    ]
    config = SymbolPairs(text_field="q", label_field="y", dataset_field="set")
    assert {pair.check["dataset"] for pair in symbol_pairs(named, config, 0, held_out=False)} == {"s0", "s1"}


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="min_exemplars=5 is above"):
        SymbolPairs(min_exemplars=5)
    with pytest.raises(ValueError, match="no other braces"):
        SymbolPairs(instruction="Is it {this}?")
    with pytest.raises(ValueError, match=r"pairs\.kind='symbols' reads fields, but source\.kind='text' has none"):
        AugmentationConfig.model_validate({"source": {"kind": "text", "path": "x"}, "pairs": {"kind": "symbols"}})
    AugmentationConfig.model_validate({"pairs": {"kind": "symbols"}})


@pytest.mark.skipif(not (DATA / "classification").is_dir(), reason=f"no test data in {DATA}; set GENAI_TEST_DATA")
def test_real_datasets_of_two_to_seventy_seven_classes_give_prompts():
    documents = []
    for name in ("sentence_polarity", "subjectivity", "trec_qc", "banking77"):
        with gzip.open(DATA / "classification" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            found = [json.loads(line) for line in lines]
        documents += [
            Document(f"{name}:{n}", f"{name}:{n}", "", row["text"], meta={"fields": row})
            for n, row in enumerate(found[::7])
        ]
    pairs = symbol_pairs(documents, SymbolPairs(), 0, held_out=False)
    counts = Counter(pair.check["dataset"] for pair in pairs)
    assert set(counts) == {"sentence_polarity", "subjectivity", "trec_qc", "banking77"}
    assert min(counts.values()) > 300
    assert {len(pair.check["map"]) for pair in pairs if pair.check["dataset"] == "banking77"} == {4}
