"""Models that fill in masks, at the command line: they write as they were trained to, and go where that can be said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calling import call_genai
from two_models import TINY, WORDS

from genai_core.config.generation import DiffusionWriter, SamplingConfig
from genai_core.data.tokenizer import load_tokenizer, train_tokenizer
from genai_core.generation.diffusion_engine import DiffusionEngine
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.types import Request
from genai_core.models.diffusion_folder import write_writer
from genai_core.models.load import init_scratch, load_model, save_model

WRITER = DiffusionWriter(row_tokens=96)
GREEDY = SamplingConfig(temperature=0, max_new_tokens=8)
PROMPTS = ("open the file", "read every line")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = train_tokenizer([WORDS, WORDS.upper()] * 4, 320, 96, mask_token=True)
    made = init_scratch(TINY, tokenizer)
    with torch.no_grad():  # an answer that ends at once would not tell the two ways of writing apart
        made.get_output_embeddings().weight[tokenizer.all_special_ids] = 0
    save_model(made, tokenizer, folder)
    write_writer(folder, WRITER)
    return folder


@pytest.fixture
def genai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call_genai(monkeypatch, capsys, *arguments)


def answers(model: Path, names: tuple[str, ...]) -> list[str]:
    """Return the answers by diffusion, which are not those from left to right."""
    requests = [Request(name, prompt) for name, prompt in zip(names, PROMPTS, strict=False)]
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    filled = [one.text for one in DiffusionEngine(loaded, tokenizer, WRITER).generate(requests, GREEDY)]
    causal = [one.text for one in GenerationEngine(loaded, tokenizer).generate(requests, GREEDY)]
    assert all(one and one != other for one, other in zip(filled, causal, strict=True))
    return filled


def test_a_file_of_prompts_is_filled_in(genai: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("\n".join(PROMPTS))
    code, _, err = genai("generate", model, "ask.txt", "--temperature", 0, "--max-new-tokens", 8)
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "ask.completions.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == answers(model, ("1/0", "2/0"))


def test_a_message_is_answered_by_filling_in(genai: Any, model: Path) -> None:
    code, out, err = genai("chat", model, "-m", PROMPTS[0], "--temperature", 0, "--max-new-tokens", 8)
    assert code == 0, err
    assert out == answers(model, ("chat-0",))[0] + "\n"


def test_llama_cpp_would_write_from_left_to_right(genai: Any, model: Path, tmp_path: Path) -> None:
    code, _, err = genai("export", model, "--to", "gguf", "--out", "out")
    assert code == 2 and "writes by diffusion (diffusion.json): llama.cpp would go from left to right" in err
    assert "--to hf" in err and not (tmp_path / "out").exists()
