"""The text that the documents' recipes are about, made small: the folder where a reader would stand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = [
    "river",
    "stone",
    "cloud",
    "house",
    "garden",
    "winter",
    "letter",
    "silver",
    "window",
    "morning",
    "paper",
    "bridge",
    "summer",
    "candle",
    "forest",
]
DOCUMENTS = 60


def prose(number: int) -> str:
    """Return four sentences that no other number gives."""
    chosen = [WORDS[(number * step + step) % len(WORDS)] for step in range(1, 9)]
    a, b, c, d, e, f, g, h = chosen
    return (
        f"Note {number} speaks of the {a} and the {b} near the {c}. "
        f"Nobody in house {number} had seen the {d} before that {e} of the year. "
        f"In the {f} they carried {number} stones over to the {g} again. "
        f"What became of the {h} is told in note {number + 1} by another hand."
    )


def rows() -> list[dict[str, object]]:
    """Return rows with every field that a recipe of the documents names."""
    return [
        {
            "text": prose(number),
            "body": prose(number),
            "author": f"author {number % 20}",
            "question": f"Which note speaks of {WORDS[number % len(WORDS)]} number {number}?",
            "answer": f"Note {number} does.",
            "messages": [
                {"role": "user", "content": f"What is said of note {number}?"},
                {"role": "assistant", "content": f"It is told by hand {number}."},
            ],
        }
        for number in range(DOCUMENTS)
    ]


def write_examples(folder: Path) -> None:
    """Write the files that the documents' recipes read."""
    (folder / "my-text").mkdir()
    (folder / "handbook").mkdir()
    for number in range(DOCUMENTS):
        (folder / "my-text" / f"note-{number}.txt").write_text(prose(number))
        (folder / "handbook" / f"page-{number}.md").write_text(
            f"# Page {number}\n\n{prose(number)}\n\n## More\n\nSee [next](page-{number + 1}.md). {prose(number + 100)}\n"
        )
    (folder / "book.txt").write_text("\n\n".join(prose(number) for number in range(200)))
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    for name in ("rows.jsonl", "chats.jsonl"):
        (folder / name).write_text(lines)
    flat = [{name: value for name, value in row.items() if isinstance(value, str)} for row in rows()]
    with (folder / "table.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    pq.write_table(pa.Table.from_pylist(flat), folder / "table.parquet")
    write_dataset(folder / "saved", flat)
    write_model(folder / "my-model")
    for name in ("ask.jsonl", "questions.txt"):
        (folder / name).write_text('{"prompt": "What is a list?"}\n')


def write_dataset(folder: Path, flat: list[dict[str, object]]) -> None:
    """Write a folder of `save_to_disk` with a split `train`."""
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(flat)}).save_to_disk(str(folder))


def write_model(folder: Path) -> None:
    """Write a base model of a few thousand weights with its tokenizer."""
    from genai_core.config.model import ScratchBase
    from genai_core.data.tokenizer import train_tokenizer
    from genai_core.models.load import init_scratch

    tokenizer = train_tokenizer([prose(number) for number in range(DOCUMENTS)], 400, 256)
    model = init_scratch(ScratchBase(n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48), tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
