"""llama.cpp itself reads the file: the same tokens, the same template, the same log-probabilities.

Skipped without a binding, which nothing else here needs:  pip install --no-deps xllamacpp
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genai_core.cli.export import HARD_TEXTS
from genai_core.config.model import ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.models.load import init_scratch
from genai_core.models.write_gguf import write_gguf

xllamacpp = pytest.importorskip("xllamacpp", reason="no binding of llama.cpp: pip install --no-deps xllamacpp")

ASKED = {"messages": [{"role": "user", "content": "How  many 12 ?"}]}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from pydoc_data.topics import topics

    return train_tokenizer(list(topics.values())[:40], 1500, 256)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    base = ScratchBase(n_layers=2, d_model=64, n_heads=4, n_kv_heads=2, d_ff=96, max_seq_len=256)
    made = init_scratch(base, tokenizer).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(3.0)
    return made


@pytest.fixture(scope="module")
def post(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    file = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(model, tokenizer, file, "f32", name="m")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.port = 0
    parameters.n_ctx = 256
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(parameters)  # on loopback; it ends when nothing holds it

    def call(path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    yield call


def test_llama_cpp_cuts_text_as_we_do(post: Any, tokenizer: Any) -> None:
    from pydoc_data.topics import topics

    for text in (*HARD_TEXTS, *topics.values(), "<|user|>hi<|end|>"):
        ours = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        assert post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"] == ours


def test_llama_cpp_renders_the_chat_template_as_we_do(post: Any, tokenizer: Any) -> None:
    ours = tokenizer.apply_chat_template(ASKED["messages"], add_generation_prompt=True, tokenize=False)
    assert post("/apply-template", ASKED)["prompt"] == ours


def test_llama_cpp_computes_what_we_do(post: Any, model: Any, tokenizer: Any) -> None:
    ids = tokenizer(HARD_TEXTS[0] * 3, add_special_tokens=False)["input_ids"][:60]
    with torch.no_grad():
        ours = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    asked = {"prompt": ids, "n_predict": 1, "n_probs": 40, "temperature": 0.0, "cache_prompt": False}
    found = post("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
    assert len(found) == 40
    assert found[0]["id"] == int(ours.argmax())
    for one in found:
        assert one["logprob"] == pytest.approx(float(ours[one["id"]]), abs=1e-3)


def test_llama_cpp_stops_at_the_end_of_a_turn(tokenizer: Any, tmp_path: Path) -> None:
    """An end of turn that is no end of text must still be one for llama.cpp, or a chat never ends."""
    from gguf import GGUFReader

    base = ScratchBase(n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, d_ff=32, max_seq_len=64)
    write_gguf(init_scratch(base, tokenizer), tokenizer, tmp_path / "m.gguf", "f32", name="m")
    end = GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.eot_token_id"].contents()
    assert tokenizer.convert_ids_to_tokens(end) == "<|end|>"
