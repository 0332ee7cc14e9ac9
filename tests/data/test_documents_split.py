"""The split leaks nothing; contamination is found wherever it is planted; links point where the text does."""

from __future__ import annotations

import gzip
import json
import random

import pytest

from genai_core.config.data import SplitConfig
from genai_core.data.decontamination import COMMON, find_contamination, find_repeated_prompts, junction
from genai_core.data.documents import Document, Pair
from genai_core.data.links import keep_links, link_names, link_titles
from genai_core.data.shingles import WordHasher, body
from genai_core.data.split import assign_sides, find_leaks
from genai_core.errors import DataError


def words(seed, count):
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=5)) for _ in range(count))


def document(text, title=""):
    return Document(text[:8], "g", title, text)


# ---- sides


def test_a_group_keeps_its_side_when_the_corpus_grows():
    groups = [f"group {n}" for n in range(2000)]
    config = SplitConfig(heldout_fraction=0.1, sealed_fraction=0.05)
    small, large = assign_sides(groups[:1000], config, 3), assign_sides(groups, config, 3)
    assert all(large[group] == side for group, side in small.items())
    counts = [list(large.values()).count(side) / 2000 for side in ("train", "heldout", "sealed")]
    assert counts == pytest.approx([0.85, 0.1, 0.05], abs=0.02)  # 3 sd of a binomial
    assert assign_sides(groups[::-1] * 2, config, 3) == large
    assert assign_sides(groups, config, 4) != large


@pytest.mark.parametrize("seed", range(20))
def test_a_small_corpus_has_every_side(seed):
    sides = assign_sides([f"{n}.txt" for n in range(10)], SplitConfig(), seed)
    assert {"train", "heldout", "sealed"} == set(sides.values())
    none = assign_sides([f"{n}.txt" for n in range(10)], SplitConfig(sealed_fraction=0), seed)
    assert "sealed" not in none.values()


def test_too_little_is_refused_with_the_counts():
    with pytest.raises(DataError, match=r"3 documents in 2 groups \(dropped: 4 too_short\).*at least 10 groups"):
        assign_sides(["a", "a", "b"], SplitConfig(), 0, {"too_short": 4, "symbols": 0})


# ---- leaks


def test_copies_parts_and_patchworks_leak_and_others_stay():
    first, second, third = words(1, 60), words(2, 60), words(3, 60)
    train = [document(first), document(second), document("name(x)\n\n" + third, "name")]
    held = [
        document(first.upper().replace(" ", ",  ")),  # a copy under other punctuation
        document(first[60:240]),  # a part of a longer text
        document(first + "\n" + second),  # put together from two
        document("other.name(y)\n\n" + third, "other.name"),  # the same words under another name
        document(words(4, 60)),
        document(" ".join(first.split()[:30]) + " " + words(5, 60)),  # a third of it is known
    ]
    assert sorted(find_leaks(train, held)) == [0, 1, 2, 3]
    assert find_leaks([], held) == {}


def test_a_short_documentation_leaks_under_another_name():
    text = "Split the name into a root and an extension."
    train = [document(f"posix.splitext(path, sep, altsep, extsep)\n\n{text}", "posix.splitext")]
    held = [document(f"nt.splitext(p)\n\n{text}", "nt.splitext")]
    assert list(find_leaks(train, held)) == [0]


def test_leaks_contain_every_near_duplicate():
    """Jaccard >= 0.8 of two sets means that at least 0.8 of each is in the other."""
    text = words(1, 100).split()
    text[50] = "changed"
    assert list(find_leaks([document(words(1, 100))], [document(" ".join(text))])) == [0]


def test_short_texts_leak_only_whole():
    assert list(find_leaks([document("one two three")], [document("One, two: three"), document("one two four")])) == [0]


def test_the_line_that_names_a_document_is_not_its_body():
    assert body(Document("1", "g", "f", "f(x)\n\nDoes it.")) == "Does it."
    assert body(Document("1", "g", "f", "f(x)")) == "f(x)"
    assert body(Document("1", "g", "", "Does\nit.")) == "Does\nit."


# ---- contamination


def pair(number, prompt, completion, task="answer"):
    return Pair(f"p{number}", task, "g", "d", prompt, completion)


@pytest.fixture(scope="module")
def questions(test_data):
    with gzip.open(test_data / "verifiable" / "gsm8k_train.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle][:150]
    return [pair(n, row["question"], row["answer"]) for n, row in enumerate(rows)]


def test_every_planted_item_is_found_in_any_dress(questions, test_data):
    with gzip.open(test_data / "pretrain" / "tinystories_2mb.jsonl.gz", "rt", encoding="utf-8") as handle:
        stories = [json.loads(line)["text"] for line in handle][: len(questions)]
    assert find_contamination(stories, questions, 13).hits == {}
    dresses = (
        lambda text: text,
        lambda text: text.upper(),
        lambda text: text.replace(",", " ;").replace(" ", "\n"),
        lambda text: "so: " + text + " (end)",
    )
    for dress in dresses:
        planted = [
            f"{story[:200]}\n{dress(item.prompt + ' ' + item.completion)}\n{story[200:]}"
            for story, item in zip(stories, questions, strict=True)
        ]
        found = find_contamination(planted, questions, 13)
        assert len(found.hits) == len(questions)
        assert found.by_task == {"answer": len(questions)}


def test_short_answers_are_protected_by_the_junction():
    item = pair(1, words(1, 40), "yes")
    leaked, asked = f"x {item.prompt} Yes. y", f"x {item.prompt} no, y"
    assert list(find_contamination([leaked, asked], [item], 13).hits) == [0]


def test_the_prompt_alone_gives_nothing_away():
    item = pair(1, words(1, 40) + " Call it with x = 1.", "f(x=1)")
    assert find_contamination([words(1, 40), item.prompt], [item], 13).hits == {}


def test_items_shorter_than_the_ngram_are_found_whole_and_tiny_ones_reported():
    item, tiny = pair(1, "who wrote the book", "ann lee"), pair(2, "two", "words")
    found = find_contamination(["Who wrote the book? Ann Lee!", "two words", "who wrote the book"], [item, tiny], 13)
    assert (list(found.hits), found.unprotected) == ([0], 1)


def test_boilerplate_is_ignored_and_told():
    item = pair(1, words(1, 20), words(2, 20))
    text = f"{item.prompt} {item.completion}"
    assert len(find_contamination([text] * COMMON, [item], 13).hits) == COMMON
    found = find_contamination([text] * (COMMON + 1), [item], 13)
    assert (found.hits, found.common_ngrams) == ({}, 20)  # every junction n-gram: one for each word of the answer
    assert len(junction(WordHasher(), item, 13)[1]) == 20


def test_training_pairs_with_an_evaluation_prompt_are_found():
    train = [pair(1, "What is it?", "a"), pair(2, "what  is IT", "b"), pair(3, "What was it?", "a")]
    assert find_repeated_prompts(train, [pair(9, "What is it", "c")]) == [0, 1]


# ---- links


def test_names_link_within_their_scope():
    def named(title, text):
        return Document(title, title, title, f"{title}()\n\n{text}", meta={"kind": "function"})

    documents = [
        named("m.A.go", "Calls stop() and other.stop, or m.helper. Never stop."),
        named("m.A.stop", "See also `m.A.go`."),
        named("m.helper", "helper() itself."),
        named("other.stop", ""),
    ]
    assert [d.links for d in link_names(documents)] == [("m.A.stop", "other.stop", "m.helper"), ("m.A.go",), (), ()]


def test_titles_link_by_whole_words_longest_first():
    documents = [
        Document("1", "g", "Moon Base", "The Moon Base on the Moons."),
        Document("2", "g", "Moon", "See Moon Base, then moon."),
        Document("3", "g", "", "A Moon over the Moon Base."),
    ]
    assert [d.links for d in link_titles(documents)] == [(), ("1",), ("2", "1")]
    many = [Document(str(n), "g", "Common" if n == 0 else "", "Common words") for n in range(40)]
    assert not any(d.links for d in link_titles(many))
    assert [d.links for d in keep_links(link_titles(documents)[1:])] == [(), ("2",)]


def test_jargon_entries_find_their_neighbours(test_data):
    with gzip.open(test_data / "links" / "jargon_file.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    gold = {row["id"]: {link["target"] for link in row["links"] if link["target"]} for row in rows}
    linked = link_titles([Document(row["id"], row["id"], row["title"], row["text"]) for row in rows])
    right = sum(len(set(d.links) & gold[d.doc_id]) for d in linked)
    assert right / sum(map(len, gold.values())) > 0.75
    assert right / sum(len(d.links) for d in linked) > 0.5  # the editors link a word once, at its best place
