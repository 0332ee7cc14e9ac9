"""The user's own rows as pairs: what is missing is counted, and no pair at all says which fields there are."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from genai_core.augmentation.pairs import build_pairs
from genai_core.config.data import ConversationPairs, FieldPairs
from genai_core.data.documents import Document, Pair
from genai_core.errors import DataError

DATA = Path(os.environ.get("GENAI_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CONFIG = FieldPairs(prompt_field="instruction", completion_field="output", context_field="input")


def rows_as_documents(rows: list[dict[str, Any]]) -> list[Document]:
    return [Document(f"row{at}", f"row{at}", "", "", (), {"fields": row}) for at, row in enumerate(rows)]


def build(*rows: dict[str, Any]) -> list[Pair]:
    return build_pairs(rows_as_documents(list(rows)), CONFIG, 0, None)


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def build_chat(*rows: dict[str, Any]) -> list[Pair]:
    return build_pairs(rows_as_documents(list(rows)), ConversationPairs(), 0, None)


def test_every_filled_row_of_a_real_table_gives_its_pair():
    path = DATA / "instruct" / "gpteacher_codegen.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no test data in {DATA}; set GENAI_TEST_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(300), strict=False)]
    pairs = build(*rows)
    filled = [row for row in rows if row["instruction"].strip() and row["output"].strip()]
    assert [pair.completion for pair in pairs] == [row["output"].strip() for row in filled]
    assert pairs[0].prompt == f"{rows[0]['instruction']}\n\n{rows[0]['input']}"
    assert pairs[0].check == {"kind": "match", "gold": rows[0]["output"].strip()}


def test_rows_without_prompt_or_answer_are_left_out():
    pairs = build(
        {"instruction": "Add 1 and 1.", "input": "", "output": 2},
        {"instruction": "", "output": "x"},
        {"instruction": "Say it.", "output": None},
        {"instruction": "Say it.", "output": ["a"]},
        {"instruction": "Repeat me", "output": "repeat  me"},
        {"instruction": "Again.", "input": None, "output": True},
    )
    assert [(pair.prompt, pair.completion) for pair in pairs] == [("Add 1 and 1.", "2"), ("Again.", "True")]


def test_no_pair_at_all_tells_counts_and_the_fields_there_are():
    with pytest.raises(
        DataError, match=r"none of the 3 rows .*1 rows: no 'instruction'; 2 rows: no 'output'.*'answer', "
    ):
        build({"instruction": "a", "answer": "b"}, {"instruction": "a", "output": " "}, {"prompt": "c"})
    with pytest.raises(DataError, match=r"no rows"):
        build()
    with pytest.raises(DataError, match=r"\(none\)"):
        build_pairs([Document("d", "g", "t", "text")], CONFIG, 0, None)


def test_the_last_assistant_turn_of_a_conversation_is_the_answer():
    single = build_chat(chat(("user", "Hello?"), ("assistant", "Hi.")))[0]
    assert (single.prompt, single.completion) == ("Hello?", "Hi.")
    longer = build_chat(
        chat(
            ("system", "Be kind."),
            ("user", "A?"),
            ("assistant", "B."),
            ("user", "C?"),
            ("assistant", "D."),
            ("user", "!"),
        )
    )[0]
    assert longer.prompt == "system: Be kind.\n\nuser: A?\n\nassistant: B.\n\nuser: C?"
    assert longer.completion == "D."


def test_malformed_conversations_are_counted():
    bad = [
        {"messages": "text"},
        {"messages": []},
        {"messages": [{"content": "no role"}]},
        {},
        chat(("assistant", "I begin."), ("user", "No.")),
        chat(("user", "Nobody answers.")),
        chat(("user", "Empty."), ("assistant", "")),
    ]
    assert len(build_chat(*bad, chat(("user", "Q"), ("assistant", "A")))) == 1
    with pytest.raises(DataError, match=r"3 rows: no assistant turn .*4 rows: no list of \{role, content\}"):
        build_chat(*bad)
