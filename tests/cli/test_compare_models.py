"""`genai compare`: paired figures, what differs, answers side by side; the same in a pipe, without colours or boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import call_genai
from rich.console import Console
from two_models import WORDS, publish_all, save_tiny

from genai_core.cli.compare import show_answers


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    publish_all(root / "home", root / "work")
    return root / "home"


@pytest.fixture
def genai(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        return call_genai(monkeypatch, capsys, "compare", *arguments)

    return call


ONE, TWO = f"one@{b'one'.hex() * 64:.8}", f"two@{b'two'.hex() * 64:.8}"


def test_two_published_models_side_by_side(genai: Any, tmp_path: Path) -> None:
    code, out, _ = genai(ONE, TWO, "--samples", 2, "--max-new-tokens", 4, "--json", "c.json")
    assert code == 0, out
    words = " ".join(out.split())
    n = len(WORDS.split())
    assert f"answer/right {(n + 1) // 2 / n:.3f} 1.000 +{n // 2 / n:.3f}" in words
    assert "pretrain.training.steps 10 20" in words
    assert "seq_len" not in words  # the same on both sides
    assert out.count("A wrong") + out.count("A right") == 2
    assert "\x1b" not in out and not set("│┃╭─━") & set(out)
    assert [line for line in out.splitlines() if len(line) > 80] == []
    told = json.loads((tmp_path / "c.json").read_text())
    (figure,) = told["figures"]["heldout"]
    assert figure["metric"] == "answer/right" and figure["b_minus_a"]["low"] > 0
    assert {"what": "pretrain.training.steps", "a": "10", "b": "20"} in told["differs"]
    assert {"prompt", "a", "b", "gold", "a_right", "b_right"} == set(told["answers"][0])


def test_a_model_and_a_folder_with_prompts_of_ones_own(genai: Any, tmp_path: Path) -> None:
    save_tiny(tmp_path / "mine", seed=3)
    (tmp_path / "ask.txt").write_text(f"What is a file?\n{WORDS * 5}\n")
    code, out, _ = genai(ONE, "mine", "--prompts", "ask.txt", "--max-new-tokens", 4)
    assert code == 0, out
    assert "No evaluation of both on one corpus" in out
    assert "pretrain" in out  # only one of them has a lineage
    assert "What is a file?" in out and out.count("(the prompt is longer than it holds)") == 2
    assert "wrong" not in out and "right:" not in out


def test_a_copy_differs_in_nothing(genai: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_tiny(tmp_path / name)
    code, out, _ = genai("a", "b")
    assert code == 0 and "Nothing that is recorded" in out
    assert "Give --prompts FILE to see answers" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((ONE, ONE), "is named twice"),
        ((ONE, "nobody"), "There is no model nobody@champion"),
        ((ONE, TWO, "--json", "no/c.json"), "there is no folder"),
        ((ONE, TWO, "--prompts", "no.txt"), "There is no file no.txt"),
        ((ONE, "."), "without config.json"),
        ((ONE,), "Missing argument"),
        ((ONE, TWO, "--samples", "-1"), "Invalid value for '--samples'"),
    ],
)
def test_wrong_input(genai: Any, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = genai(*arguments)
    assert code == 2 and words in err, err


def test_right_is_green_and_wrong_is_red_on_a_terminal_and_said_in_words_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"prompt": "p", "a": "x", "b": "[bold]y[/]", "gold": "x", "a_right": True, "b_right": False}]
    show_answers(Console(force_terminal=True, color_system="standard", width=60, highlight=False), rows, True)
    out = capsys.readouterr().out
    assert "\x1b[32mx" in out and "\x1b[31m[bold]y[/]" in out
    assert "A right" in out and "B wrong" in out and "A 1, B 0 of 1 shown" in out
