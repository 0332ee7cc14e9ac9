"""What a worker is sent and sends back is JSON, and a model is loaded once until its files change."""

from __future__ import annotations

import json
import os

import pytest
from tiny_llama import sentence

from genai_core.config.generation import SamplingConfig
from genai_core.generation import worker
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.scoring import score
from genai_core.generation.types import Completion, Request


@pytest.fixture
def folder(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_loaded", {})
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_shards_give_what_the_engine_and_the_scores_give(folder, model, tokenizer):
    sampling = SamplingConfig(max_new_tokens=8, seed=2)
    requests = [Request(f"r{i}", sentence(i, 5 + i)) for i in range(4)]
    arguments = {"model": str(folder), "sampling": sampling.model_dump(mode="json"), "threads": 1}
    rows = json.loads(json.dumps(worker.generate_shard(arguments, [request.to_json() for request in requests])))
    assert [Completion.from_json(row) for row in rows] == GenerationEngine(model, tokenizer).generate(
        requests, sampling
    )
    texts = [{"row_id": "d", "text": sentence(1, 30)}, {"row_id": "a", "prompt": "open", "completion": "file"}]
    scored = worker.score_shard({"model": str(folder), "threads": 1}, texts)
    assert json.loads(json.dumps(scored)) == score(model, tokenizer, texts)


def test_a_model_is_loaded_again_only_when_its_files_change(folder):
    arguments = {"model": str(folder), "threads": 1}
    first = worker.load_shard_model(arguments)
    assert worker.load_shard_model(arguments) is first
    weights = folder / "model.safetensors"
    later = weights.stat().st_mtime_ns + 5_000_000_000
    os.utime(weights, ns=(later, later))
    assert worker.load_shard_model(arguments) is not first
    assert len(worker._loaded) == 1
