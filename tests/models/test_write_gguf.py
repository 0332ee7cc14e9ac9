"""GGUF: what is written reads back to the same numbers and the same tokens, and what llama.cpp would read otherwise is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from tokenizers import Regex, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from genai_core.config.model import ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import ModelError
from genai_core.models.gguf_tokenizer import CONTROL, differing, pre_tokenizer_name, read_as_llama_cpp
from genai_core.models.load import init_scratch
from genai_core.models.round_trip import Reloaded, compare_logits
from genai_core.models.write_gguf import DTYPES, named_tensors, pair_neighbours, round_weights, write_gguf

TEXT = "some words 12 of a small vocabulary, some of them twice: ärger, naïve; x = [1, 23]\n\n  return  7 don't"
TEXTS = (
    TEXT,
    "   1",
    "a\n\n1",
    "x\t 12  34\n",
    "½ Ⅷ ２３ 日本語 12 🙂1",
    "we'll I'M  <|end|> they've",
    "\u00a01\r\n 2",
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([TEXT, TEXT.upper(), TEXT[::-1]] * 8, 400, 64)


def make_model(tokenizer: Any, **changes: Any) -> Any:
    base = ScratchBase(n_layers=2, d_model=64, n_heads=4, n_kv_heads=2, d_ff=80, max_seq_len=64)
    model = init_scratch(base.model_copy(update=changes), tokenizer).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0)  # far enough from uniform that a wrong weight is seen
    return model


def read_back(folder: Path, file: str, ids: list[int]) -> Reloaded:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    return Reloaded([ids], [logits], [], [])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numbers_read_back_are_those_written(tokenizer: Any, tmp_path: Path, dtype: str, tied: bool) -> None:
    model = make_model(tokenizer, tie_embeddings=tied)
    wider = write_gguf(model, tokenizer, tmp_path / "m.gguf", dtype, name="m", license_id="MIT")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"][:48]
    reloaded = read_back(tmp_path, "m.gguf", ids)
    apart = compare_logits(model, reloaded)
    round_weights(model, dtype)
    assert compare_logits(model, reloaded).largest < 1e-4
    assert apart.positions == len(ids)
    if dtype == "f32":
        assert apart.largest < 1e-4 and apart.same_choice == 1.0
    else:
        assert apart.largest > 1e-3  # it did round
    # 80 is no multiple of 32: ffn_down stays wider
    assert wider == ([f"blk.{n}.ffn_down.weight" for n in range(2)] if dtype == "q8_0" else [])
    names = {tensor.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert ("output.weight" in names) is not tied
    assert GGUFReader(tmp_path / "m.gguf").fields["general.license"].contents() == "MIT"


def test_q_and_k_are_reordered_by_their_own_number_of_heads(tokenizer: Any) -> None:
    assert pair_neighbours(np.arange(8.0)[:, None], 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    tensors = dict(named_tensors(make_model(tokenizer)))
    assert tensors["blk.0.attn_q.weight"].shape == (64, 64) and tensors["blk.0.attn_k.weight"].shape == (32, 64)


def test_a_broken_file_is_seen(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genai_core.models.write_gguf.pair_neighbours", lambda weight, heads: weight)
    model = make_model(tokenizer)
    write_gguf(model, tokenizer, tmp_path / "m.gguf", "f32", name="m")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"][:48]
    assert compare_logits(model, read_back(tmp_path, "m.gguf", ids)).largest > 0.1


def test_the_tokenizer_reads_back_by_llama_cpps_rules(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(make_model(tokenizer), tokenizer, file, "f32", name="m")
    ours = tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]
    theirs = [read_as_llama_cpp(file).encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert differing(TEXTS, ours, theirs) == []
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert loaded.chat_template == tokenizer.chat_template
    # transformers reads every file by GPT-2's rules; told by the export, which is why it says --to hf
    assert "a\n\n1" in differing(TEXTS, ours, loaded(list(TEXTS), add_special_tokens=False)["input_ids"])
    fields = {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert fields["tokenizer.ggml.eot_token_id"] == tokenizer.convert_tokens_to_ids("<|end|>")
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert sum(kind == CONTROL for kind in fields["tokenizer.ggml.token_type"]) == 6


def test_a_plain_byte_level_tokenizer_is_gpt2_and_any_other_is_refused(tokenizer: Any) -> None:
    assert pre_tokenizer_name(tokenizer) == "smollm"
    plain = train_tokenizer([TEXT] * 8, 320, 64)
    plain.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert pre_tokenizer_name(plain) == "gpt-2"
    for rules in (
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(False)]),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        ),
    ):
        plain.backend_tokenizer.pre_tokenizer = rules
        with pytest.raises(ModelError, match=r"would cut text otherwise.*Use --to hf"):
            pre_tokenizer_name(plain)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_type='linear'"),
    ],
)
def test_a_llama_that_llama_cpp_would_compute_otherwise_is_refused(
    tokenizer: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **changes))
    with pytest.raises(ModelError, match=words):
        write_gguf(model, tokenizer, tmp_path / "m.gguf", "f32", name="m")
    other = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **shape))
    with pytest.raises(ModelError, match=r"Qwen2ForCausalLM cannot be written.*LlamaForCausalLM can"):
        write_gguf(other, tokenizer, tmp_path / "m.gguf", "f32", name="m")
    assert not list(tmp_path.iterdir())


def test_rows_beyond_the_vocabulary_are_marked_unused(tokenizer: Any, tmp_path: Path) -> None:
    model = make_model(tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 5)
    write_gguf(model, tokenizer, tmp_path / "m.gguf", "f32", name="m")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"][:20]
    assert compare_logits(model, read_back(tmp_path, "m.gguf", ids)).largest < 1e-4
