"""`genai export`: what is written loads again and says the same; what would not is refused and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from calling import call_genai
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from two_models import TINY, WORDS, publish_all, save_tiny

from genai_core.config.generation import DiffusionWriter
from genai_core.data.tokenizer import load_tokenizer
from genai_core.models.adapters import save_adapter
from genai_core.models.diffusion_folder import write_writer
from genai_core.models.load import init_scratch, load_model, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def genai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        return call_genai(monkeypatch, capsys, "export", *arguments)

    return call


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = load_model(folder)(input_ids=torch.tensor([[3, 9, 20, 7]])).logits
    return found


def test_a_folder_for_transformers_has_all_and_nothing_else(genai: Any, model: Path, tmp_path: Path) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    write_writer(own, DiffusionWriter(row_tokens=96))
    (own / "notes.pt").write_text("mine")
    (own / "README.md").write_text(
        "---\nlicense: mit\n---\n# Mine\n\n## How to load\n\nAsk me.\n\n## Limits\n\nMany.\n"
    )
    code, out, _ = genai("own", "--to", "hf", "--out", "out")
    assert code == 0, out
    names = {path.name for path in model.iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"README.md", "diffusion.json"}
    assert torch.equal(logits(tmp_path / "out"), logits(model))
    assert "largest difference 0 (allowed 0.0001); tokens: the same" in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Mine" in card and "from_pretrained(folder)" in card and "Ask me." not in card and "## Limits" in card
    assert "`generate` of transformers goes from left to right" in card and "`genai generate`" in card


def test_a_file_for_llama_cpp_says_how_far_rounding_moved_it(genai: Any, model: Path, tmp_path: Path) -> None:
    code, out, _ = genai(model, "--to", "gguf", "--out", "out", "--dtype", "q8_0")
    assert code == 0, out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tiny-q8_0.gguf", "README.md"}
    assert "to the numbers written (allowed 0.0001)" in out
    assert "q8_0 rounds; same first choice at" in out
    assert "the same under llama.cpp's rules for 'smollm'" in out
    assert "transformers' reader of GGUF lacks these rules" in out
    assert max(map(len, out.splitlines())) < 120
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_a_published_model_brings_its_lineage_and_real_prompts(genai: Any, tmp_path: Path) -> None:
    one, _ = publish_all(tmp_path / "home", tmp_path / "work")
    code, out, _ = genai(one.label(), "--to", "gguf", "--out", "out")
    assert code == 0, out
    assert "8 held-out prompts" in out
    card = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "CC-BY-4.0"
    assert "| data | rows | CC-BY-4.0 |" in card and "llama-cli -m one-f16.gguf" in card and one.label() in card
    fields = GGUFReader(tmp_path / "out" / "one-f16.gguf").fields
    assert fields["general.license"].contents() == "CC-BY-4.0"
    assert fields["general.name"].contents() == "one"


def test_an_adapter_is_merged_into_the_base_it_names(genai: Any, model: Path, tmp_path: Path) -> None:
    lora = get_peft_model(
        load_model(model), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in lora.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.5)
        ours = lora(input_ids=torch.tensor([[3, 9, 20, 7]])).logits
    save_adapter(lora, tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    code, _, err = genai("adapter", "--to", "hf", "--out", "out")
    assert code == 2 and "is an adapter to the base that it does not name" in err
    told["base_model_name_or_path"] = str(model)
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(told))
    code, out, _ = genai("adapter", "--to", "hf", "--out", "out")
    assert code == 0, out
    assert torch.allclose(logits(tmp_path / "out"), ours, atol=1e-5)
    assert not torch.allclose(logits(tmp_path / "out"), logits(model), atol=1e-2)


def test_an_encoder_is_read_back_with_its_head_and_its_card_says_which_class_does_it(
    genai: Any, model: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(model)
    encoder = init_scratch(TINY.model_copy(update={"architecture": "bert", "n_kv_heads": 2}), tokenizer)
    save_model(encoder, tokenizer, tmp_path / "encoder")
    code, out, err = genai("encoder", "--to", "hf", "--out", "out")
    assert code == 0, err
    assert "BertForMaskedLM" in out and "logits: largest difference 0 (allowed 0.0001)" in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "model = AutoModelForMaskedLM.from_pretrained(folder)" in card and "CausalLM" not in card
    code, _, err = genai("encoder", "--to", "gguf", "--out", "file")
    assert code == 2 and "is an encoder (BertForMaskedLM)" in err
    encoder.base_model.save_pretrained(tmp_path / "encoder")
    code, _, err = genai("encoder", "--to", "hf", "--out", "file")
    assert code == 2 and "is an encoder without a head" in err and not (tmp_path / "file").exists()


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_what_reads_back_otherwise_is_not_written(
    genai: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    import genai_core.cli.export as command

    real = command.load_source

    def other(folder: Path, **options: bool) -> tuple[Any, Any]:
        loaded, tokenizer = real(folder, **options)
        with torch.no_grad():
            loaded.model.norm.weight.mul_(1.01)
        return loaded, tokenizer

    if to == "hf":
        monkeypatch.setattr(command, "load_source", other)
    else:
        monkeypatch.setattr("genai_core.models.write_gguf.pair_neighbours", lambda weight, heads: weight[::-1])
    code, _, err = genai(model, "--to", to, "--out", "out")
    assert code == 1 and "gives other logits" in err and "Nothing was written" in err
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []


def test_other_tokens_are_refused(genai: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genai_core.models.gguf_tokenizer.pre_tokenizer_name", lambda tokenizer: "gpt-2")
    code, _, err = genai(model, "--to", "gguf", "--out", "out")
    assert code == 1 and "into other tokens than the model was trained on" in err
    assert not (tmp_path / "out").exists()


def test_force_replaces_files_of_the_same_name_only(genai: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text(WORDS)
    code, _, err = genai(model, "--to", "hf", "--out", "out")
    assert code == 2 and "is not empty" in err and "--force" in err
    code, _, _ = genai(model, "--to", "hf", "--out", "out", "--force")
    assert code == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == WORDS and (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--to", "onnx", "--out", "out"), 2, "--to onnx is not a format: hf"),
        (
            ("--to", "gguf", "--out", "out", "--dtype", "q4"),
            2,
            "--dtype q4 is not written; there are f32, f16, bf16, q8_0",
        ),
        (("--to", "hf", "--out", "out", "--dtype", "f16"), 2, "goes with --to gguf"),
        (("--to", "hf", "--out", "no/where"), 2, "there is no folder"),
        (("--to", "hf", "--out", "file.txt"), 2, "is a file"),
        (("--to", "hf"), 2, "Missing option"),
    ],
)
def test_wrong_options(
    genai: Any, model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "file.txt").write_text("x")
    found, _, err = genai(model, *arguments)
    assert found == code and words in err, err


def test_a_model_that_is_not_there_or_has_no_room(
    genai: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    assert genai("empty", "--to", "hf", "--out", "out")[0::2] == (
        2,
        "error: empty is a folder without config.json: not a model written by save_pretrained.",
    )
    code, _, err = genai("nobody", "--to", "hf", "--out", "out")
    assert code == 2 and "There is no model nobody@champion" in err and "No model is registered yet" in err
    (tmp_path / "full").mkdir()
    code, _, err = genai(model, "--to", "hf", "--out", model, "--force")
    assert code == 2 and "is the model itself" in err
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    code, _, err = genai(model, "--to", "hf", "--out", "out")
    assert code == 1 and "has 1 kB free" in err and not (tmp_path / "out").exists()
