"""Cleaning, masking and quality rules: idempotent, precise, each rule at its border."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.config.data import CleaningConfig, QualityConfig
from genai_core.data.cleaning import clean_document, clean_text
from genai_core.data.documents import Document
from genai_core.data.dropped import SAMPLES, Dropped
from genai_core.data.pii import luhn, mask_document, mask_text
from genai_core.data.quality import duplicate_line_share, find_fault, symbol_share

# ---- cleaning


def test_mojibake_line_ends_and_controls_are_repaired():
    assert clean_text("cafÃ©\r\n\x07bell\rx\u2028y\ufeff  \n\n\n\n\n\nz\n") == "café\nbell\nx\ny\n\n\nz"
    assert clean_text("“quoted” &lt;b&gt;") == "“quoted” &lt;b&gt;"  # the author's own marks stay
    assert clean_text("e\u0301") == clean_text("e\u0301", repair=False) == clean_text("e\u00ad\u0301") == "é"
    assert clean_text("Ã\u200b©") == "é"  # one repair uncovers another


def test_repair_can_be_left_out():
    assert clean_text("cafÃ©\r\n", repair=False) == "cafÃ©"


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("Ã©â€™\r\n\t \x1b[0m&;")), max_size=60))
def test_cleaning_twice_is_cleaning_once(text):
    once = clean_text(text)
    assert clean_text(once) == once


def test_fields_are_cleaned_and_masked_like_the_text():
    document = Document("1", "g", "t\r", "write ann@corp.io", meta={"fields": {"q": ["ann@corp.io\r\n", 3], "a": None}})
    cleaned = clean_document(document, CleaningConfig())
    assert cleaned.title == "t"
    assert cleaned.meta["fields"] == {"q": ["ann@corp.io", 3], "a": None}
    masked, count = mask_document(cleaned)
    assert (masked.text, masked.meta["fields"]["q"], count) == ("write <EMAIL_1>", ["<EMAIL_1>", 3], 1)


# ---- personal data

KEPT = [
    "version 1.2.3.4 and section 11.4.2.1 of Python 3.11.7.1",
    "1234.5.6.7 and 300.1.2.3 and 1.2.3.4.5",
    "localhost is 127.0.0.1, the network 192.168.1.17, the mask 255.255.255.0",
    "user@example.com, root@localhost, x@mail.example.org",
    "decorators such as @property and a@b",
    "std::vector, 12:30:45, Dead::Beef",
    "+1 234, 2020-2021, 100-200-3000, 10000000000",
    "4111 1111 1111 1112 and 1234567890123456 and 0000 0000 0000 0000",
    "GB82 WEST 1234 5698 7654 33 and DE00ABCD",
    "see RFC 1918.10.200.1",
    "release 120.4.5.6 is out",
]
MASKED = [
    ("mail ann.lee+x@corp.co.uk.", "mail <EMAIL_1>."),
    ("<bob@dev.io>", "<<EMAIL_1>>"),
    ("server 93.184.216.34:80", "server <IP_1>:80"),
    ("the host 8.8.8.8 answers", "the host <IP_1> answers"),
    ("2606:2800:220:1:248:1893:25c8:1946", "<IP_1>"),
    ("call +49 (30) 1234 5678 now", "call <PHONE_1> now"),
    ("call (212) 555-0123 or 212-555-0123", "call <PHONE_1> or <PHONE_1>"),
    ("card 4111 1111 1111 1111, 378282246310005", "card <CARD_1>, <CARD_2>"),
    ("pay to GB82 WEST 1234 5698 7654 32", "pay to <IBAN_1>"),
    ("DE89370400440532013000.", "<IBAN_1>."),
]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_not_personal_stays(text):
    assert mask_text(text) == text


@pytest.mark.parametrize(("text", "expected"), MASKED)
def test_what_is_personal_goes_and_once_is_enough(text, expected):
    assert mask_text(text) == expected
    assert mask_text(expected) == expected


def test_one_value_has_one_placeholder_and_old_ones_are_not_reused():
    assert mask_text("a@b.io c@d.io A@B.io") == "<EMAIL_1> <EMAIL_2> <EMAIL_1>"
    assert mask_text("<EMAIL_3> wrote to a@b.io") == "<EMAIL_3> wrote to <EMAIL_4>"


def test_recall_and_precision_on_planted_values(test_data):
    """Real prose is the background; every planted value is found, and next to nothing else."""
    values = [
        ("EMAIL", "ann.lee@corp.io"),
        ("IP", "93.184.216.34"),
        ("CARD", "5555 5555 5555 4444"),
        ("IBAN", "FR1420041010050500013M02606"),
        ("PHONE", "+44 20 7946 0958"),
    ]
    with gzip.open(test_data / "pretrain" / "tinystories_2mb.jsonl.gz", "rt", encoding="utf-8") as handle:
        stories = [json.loads(line)["text"] for line in handle][:500]
    assert sum(mask_text(story) != story for story in stories) == 0
    rng = random.Random(0)
    for story in stories:
        kind, value = rng.choice(values)
        words = story.split()
        words.insert(rng.randrange(len(words) + 1), value)
        masked = mask_text(" ".join(words))
        assert f"<{kind}_1>" in masked
        assert mask_text(masked) == masked


def test_a_group_named_after_a_person_is_hashed_not_merged():
    documents = [Document(str(n), f"user{n}@corp.io", "", "text") for n in range(2)]
    groups = {mask_document(document)[0].group for document in documents}
    assert len(groups) == 2
    assert not any("@" in group or "EMAIL" in group for group in groups)


def test_luhn_knows_every_single_digit_error():
    good = "4111111111111111"
    assert luhn(good)
    for index, digit in enumerate(good):
        for other in set("0123456789") - {digit}:
            assert not luhn(good[:index] + other + good[index + 1 :])


# ---- quality

RULES = [
    ("too_short", {"min_words": 3}, "one two three", "one two"),
    ("too_long", {"min_words": 0, "max_words": 3}, "one two three", "one two three four"),
    ("long_word", {"min_words": 1, "max_word_chars": 4}, "abcd efgh", "abcde efgh"),
    ("symbols", {"min_words": 1, "max_symbol_ratio": 0.25}, "abc1", "ab1"),
    ("duplicate_lines", {"min_words": 1, "max_duplicate_lines": 0.5}, "a\na\n\nb\nb", "a\n a\na\na\nb"),
]


@pytest.mark.parametrize(("reason", "limits", "passing", "failing"), RULES)
def test_each_rule_at_its_border(reason, limits, passing, failing):
    config = QualityConfig(**{"max_symbol_ratio": 1.0, "max_duplicate_lines": 1.0, **limits})
    assert find_fault(passing, config) == ""
    assert find_fault(failing, config) == reason


def test_shares_by_hand():
    assert symbol_share("a b,1") == 2 / 5
    assert duplicate_line_share("a\nb\na\na\n") == 0.5  # datatrove's convention: the first copy does not count
    assert duplicate_line_share("a\na") == 0.5


@pytest.mark.parametrize("text", ["", " \n\t ", "\n"])
def test_empty_documents_never_raise(text):
    assert find_fault(text, QualityConfig(min_words=0)) == "too_short"
    assert symbol_share(text) == duplicate_line_share(text) == 0


def test_samples_are_few_and_masked():
    dropped = Dropped()
    for number in range(9):
        dropped.drop(Document(str(number), "g", "", "from ann@corp.io"), "too_short")
    assert dropped.total() == dropped.counts["too_short"] == 9
    assert len(dropped.samples["too_short"]) == SAMPLES
    assert dropped.samples["too_short"][0]["text"] == "from <EMAIL_1>"
