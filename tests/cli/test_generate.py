"""`genai generate`: every prompt answered in order, the same after a kill, and bad input told before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import call_genai

from genai_core.cli import generate as command
from genai_core.config.model import ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.models.load import init_scratch, save_model

WORDS = "open the file and read every line of it, then close it and say how many words there are in it"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([WORDS, WORDS.upper()] * 4, 320, 64)
    tiny = ScratchBase(n_layers=2, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48, max_seq_len=64)
    save_model(init_scratch(tiny, tokenizer), tokenizer, folder)
    return folder


@pytest.fixture
def genai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "ROWS_AT_ONCE", 2)

    def call(*arguments: object) -> tuple[int, str]:
        code, _, error = call_genai(monkeypatch, capsys, "generate", *arguments)
        return code, error

    return call


def prompts(folder: Path, count: int = 5) -> Path:
    path = folder / "ask.jsonl"
    rows = [{"id": index, "prompt": " ".join(WORDS.split()[index : index + 3])} for index in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


SAMPLED = ("--samples", 2, "--temperature", 1.0, "--max-new-tokens", 6)


def test_every_prompt_is_answered_in_order_and_nothing_twice(genai: Any, model: Path, tmp_path: Path) -> None:
    path = prompts(tmp_path)
    code, err = genai(model, path, *SAMPLED)
    assert code == 0 and "10 completions in" in err
    rows = read(tmp_path / "ask.completions.jsonl")
    assert [(row["id"], row["sample"]) for row in rows] == [(index, sample) for index in range(5) for sample in (0, 1)]
    assert all(row["finish_reason"] in {"stop", "length"} and 0 < row["tokens"] <= 6 for row in rows)
    assert len({row["completion"] for row in rows}) > 5
    before = (tmp_path / "ask.completions.jsonl").read_bytes()
    code, err = genai(model, path, *SAMPLED)
    assert code == 0 and "All 10 completions are in" in err
    assert (tmp_path / "ask.completions.jsonl").read_bytes() == before


def test_after_a_kill_it_goes_on_to_the_same_bytes(genai: Any, model: Path, tmp_path: Path) -> None:
    path = prompts(tmp_path)
    genai(model, path, *SAMPLED, "--out", "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(b"".join(lines[:3]) + lines[3][:11])
    code, err = genai(model, path, *SAMPLED, "--out", "torn.jsonl")
    assert code == 0 and "7 completions in torn.jsonl" in err and "3 were there already" in err
    assert torn.read_bytes() == whole


def test_a_prompt_too_long_for_the_model_is_told_in_its_line(genai: Any, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "ask.txt"
    path.write_text(f"short\n\n{WORDS * 8}\n")
    code, err = genai(model, path, "--max-new-tokens", 4)
    assert code == 0 and "1 prompts are too long" in err
    short, long = read(tmp_path / "ask.completions.jsonl")
    assert "error" not in short
    assert "the model holds 64" in long["error"] and long["completion"] == ""


@pytest.mark.parametrize(
    ("name", "content", "more", "words"),
    [
        ("none.jsonl", None, (), "There is no file none.jsonl"),
        ("empty.jsonl", b"\n", (), "holds no prompt"),
        ("broken.jsonl", b'{"prompt": "a"}\n{oops\n', (), "line 2 is not JSON"),
        ("other.jsonl", b'{"question": "a"}\n', (), "it has 'question'. Name the field with --field"),
        ("binary.txt", bytes(range(128, 256)), (), "is not text in UTF-8"),
        ("a.txt", b"a\n", ("--samples", 3), "at temperature 0 are all the same"),
        ("a.txt", b"a\n", ("--out", "nowhere/b.jsonl"), "there is no folder"),
    ],
)
def test_bad_input_is_told(genai: Any, tmp_path: Path, name: str, content: bytes | None, more: Any, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, err = genai("no-such-model", name, *more)
    assert code == 2 and words in err, err


def test_an_output_of_other_prompts_is_left_alone(genai: Any, model: Path, tmp_path: Path) -> None:
    path = prompts(tmp_path)
    out = tmp_path / "out.jsonl"
    out.write_text('{"prompt": "something else", "sample": 0}\n')
    code, err = genai(model, path, "--out", "out.jsonl")
    assert code == 2 and "line 1 answers another prompt" in err
    assert out.read_text() == '{"prompt": "something else", "sample": 0}\n'
