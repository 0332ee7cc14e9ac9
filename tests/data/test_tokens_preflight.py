"""The preflight shows what is trained on, and refuses what nobody can mean."""

from __future__ import annotations

import html.parser
import json
import re

import pytest
from rich.text import Text
from tokens_world import LINES, NO_ANSWER, NO_END, NO_PROMPT, REWRITING, foreign_tokenizer, own_tokenizer

from genai_core.data.documents import Pair
from genai_core.data.packing import pack_documents
from genai_core.data.preflight import render_preflight_text, write_preflight
from genai_core.data.templates import DEFAULT_TEMPLATE
from genai_core.data.tokenizer import document_end_id, encode_documents
from genai_core.errors import DataError

PAIRS = [
    Pair(f"p{i}", task, "g", "d", f"{task} <b>{i}</b> & [bold]more[/bold] \\", f"os.path('<i>', {i}) 🎉 [red] \\")
    for i in range(6)
    for task in ("call", "name")
]


def pack(tokenizer, seq_len=64):
    return pack_documents(encode_documents(tokenizer, LINES), seq_len, document_end_id(tokenizer))


class MarkedText(html.parser.HTMLParser):
    """The text inside <mark>, and all tags."""

    def __init__(self):
        super().__init__()
        self.marked, self.tags, self._inside = [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = self._inside or tag == "mark"
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "mark"

    def handle_data(self, data):
        if self._inside:
            self.marked.append(data)


def test_shares_and_marks_are_those_of_training(tmp_path):
    tokenizer = own_tokenizer()
    report = write_preflight(tmp_path, tokenizer, PAIRS, pack(tokenizer))
    assert list(report["sources"]) == ["pairs/call", "pairs/name", "pretrain"]
    for task in ("call", "name"):
        counts = report["sources"][f"pairs/{task}"]
        assert (counts["checked"], counts["ends_supervised"]) == (6, 6)
        assert 0 < counts["share"] == counts["supervised"] / counts["tokens"] < 1
    assert report["sources"]["pretrain"]["share"] == 1.0
    page = MarkedText()
    page.feed((tmp_path / "preflight.html").read_text(encoding="utf-8"))
    assert "".join(page.marked).count("<|end|>") == 6  # three samples of each task
    assert "os.path('<i>', 0) 🎉 [red] \\<|end|>" in page.marked
    assert not {"script", "link", "img", "iframe", "b"} & set(page.tags) - {"mark"}
    assert json.loads((tmp_path / "preflight.json").read_text(encoding="utf-8"))["sources"] == report["sources"]


def test_the_page_needs_nothing_from_outside_and_has_two_modes(tmp_path):
    write_preflight(tmp_path, own_tokenizer(), PAIRS, pack(own_tokenizer()))
    page = (tmp_path / "preflight.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page


def test_the_terminal_text_is_the_same_rows(tmp_path):
    report = write_preflight(tmp_path, own_tokenizer(), PAIRS, pack(own_tokenizer()))
    text = Text.from_markup(render_preflight_text(report))
    assert "call <b>0</b> & [bold]more[/bold] \\" in text.plain
    green = [text.plain[span.start : span.end] for span in text.spans if span.style == "green"]
    assert green[0] == "os.path('<i>', 0) 🎉 [red] \\<|end|>"
    read = json.loads((tmp_path / "preflight.json").read_text(encoding="utf-8"))
    assert render_preflight_text(read) == render_preflight_text(report)


def test_the_same_bytes_twice(tmp_path):
    for name in ("a", "b"):
        write_preflight(tmp_path / name, own_tokenizer(), PAIRS, pack(own_tokenizer()))
    for file in ("preflight.html", "preflight.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (NO_ANSWER, r"'pairs/call'.*0 % of its tokens.*drops the answers"),
        (NO_PROMPT, r"'pairs/call'.*100 % of its tokens.*drops the user's turns"),
        (NO_END, r"end-of-turn token \(the chat template writes none\) is never trained on.*eos_token"),
        (REWRITING, r"6 of 6 examples.*rewrites earlier turns"),
    ],
)
def test_wrong_supervision_is_refused(tmp_path, template, message):
    tokenizer = foreign_tokenizer(template)
    with pytest.raises(DataError, match=message):
        write_preflight(tmp_path, tokenizer, PAIRS, pack(tokenizer))
    good = foreign_tokenizer(DEFAULT_TEMPLATE)  # the same tokenizer, pairs and rows with a right template
    write_preflight(tmp_path, good, PAIRS, pack(good))


def test_empty_answers_and_no_text_are_refused(tmp_path):
    tokenizer = own_tokenizer()
    empty = [Pair("e", "answer", "g", "d", "question", "")]
    with pytest.raises(DataError, match=r"'pairs/answer'.*0 % of its tokens"):
        write_preflight(tmp_path, tokenizer, [*PAIRS, *empty], pack(tokenizer))
    assert "pairs/answer" in (tmp_path / "preflight.html").read_text(encoding="utf-8")  # there to be looked at
    with pytest.raises(DataError, match=r"'pretrain'.*nothing to train on"):
        write_preflight(tmp_path, tokenizer, PAIRS, pack_documents([], 64, 1))
