"""The whole worker: what it publishes does not depend on when, where, or how often it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from worker_case import arguments, digests, make_corpus, read_journal

from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import InterruptedRunError, ModelError
from genai_core.training import engine as engine_module
from genai_core.training.worker import train_worker

SCRIPT = Path(__file__).with_name("worker_case.py")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(corpus, tmp_path_factory):
    """Return the workspace of an uninterrupted run."""
    torch.set_num_threads(1)
    work = tmp_path_factory.mktemp("unbroken")
    train_worker(arguments(corpus, work))
    return work


def assert_same_result(work, unbroken):
    assert digests(work / "model") == digests(unbroken / "model")
    assert (work / "summary.json").read_text() == (unbroken / "summary.json").read_text()
    points = [(name, row["step"]) for row in read_journal(work) for name in row.get("m", ())]
    expected = [(name, row["step"]) for row in read_journal(unbroken) for name in row.get("m", ())]
    assert sorted(points) == sorted(expected)  # neither gap nor double


def test_plain_transformers_loads_what_is_published(unbroken):
    model = AutoModelForCausalLM.from_pretrained(unbroken / "model")
    tokenizer = AutoTokenizer.from_pretrained(unbroken / "model")
    stops = {tokenizer.convert_ids_to_tokens(index) for index in model.generation_config.eos_token_id}
    assert stops == {"<|endoftext|>", "<|end|>"}
    assert tokenizer.chat_template
    assert model.config.vocab_size == len(tokenizer)
    told = json.loads((unbroken / "told.json").read_text())
    assert told["plan"] == {"precision": "float32", "threads": 1, "micro_batch_rows": 4, "world_size": 1, "changes": []}
    assert told["useful_tokens_per_second"] > 0
    summary = json.loads((unbroken / "summary.json").read_text())
    assert summary["steps"] == 16
    assert summary["tokens_seen"] == 16 * 8 * 32
    assert 0 < summary["eval_bits_per_byte"] < 8
    assert summary["train_loss"] < 5.7  # ln 320 = 5.77 at the start


def test_nothing_published_tells_where_or_when(unbroken):
    for file in (unbroken / "model").rglob("*.json"):
        assert str(unbroken.parent) not in file.read_text(), file


def test_sigkill_and_rerun_publish_the_same_bytes(corpus, unbroken, tmp_path):
    work = tmp_path / "killed"
    work.mkdir()
    (tmp_path / "arguments.json").write_text(json.dumps(arguments(corpus, work)))
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path / "arguments.json")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if (work / "journal.jsonl").exists() and any(row.get("step", 0) >= 6 for row in whole_lines(work)):
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (work / "summary.json").exists()
    train_worker(arguments(corpus, work))
    assert any(row.get("e", "").startswith("resumed at step") for row in read_journal(work))
    assert_same_result(work, unbroken)


def whole_lines(work):
    text = (work / "journal.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@pytest.mark.parametrize("killed_at", [0, 1, 4, 9, 15])
def test_a_run_that_fails_anywhere_goes_on_from_its_last_checkpoint(corpus, unbroken, tmp_path, monkeypatch, killed_at):
    class PowerCutError(Exception):
        pass

    real, calls = engine_module.accumulate_gradients, []

    def cut(*given, **named):
        calls.append(1)
        if len(calls) == killed_at + 1:
            raise PowerCutError
        return real(*given, **named)

    monkeypatch.setattr(engine_module, "accumulate_gradients", cut)
    with pytest.raises(PowerCutError):
        train_worker(arguments(corpus, tmp_path))
    torch.manual_seed(12345)  # a resumed process has another state of everything that is not in the checkpoint
    train_worker(arguments(corpus, tmp_path))
    assert (
        len(calls) == killed_at + 1 + 16 - killed_at // 4 * 4
    )  # at most the steps since the last checkpoint are made again
    assert_same_result(tmp_path, unbroken)


def test_a_finished_run_called_again_publishes_again(corpus, unbroken, tmp_path):
    train_worker(arguments(corpus, tmp_path))
    (tmp_path / "model" / "model.safetensors").unlink()
    train_worker(arguments(corpus, tmp_path))
    assert_same_result(tmp_path, unbroken)


def test_a_stop_file_stops_it_resumably(corpus, unbroken, tmp_path):
    (tmp_path / "stop").touch()
    with pytest.raises(InterruptedRunError, match="Run again to resume"):
        train_worker(arguments(corpus, tmp_path))
    (tmp_path / "stop").unlink()
    train_worker(arguments(corpus, tmp_path))
    assert_same_result(tmp_path, unbroken)


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_trained_alone_and_published_merged_and_apart(corpus, unbroken, tmp_path, dora):
    given = {
        "model": str(unbroken / "model"),
        "tuning": {"kind": "lora", "rank": 4, "alpha": 8, "dora": dora},
        "steps": 6,
    }
    for name in ("a", "b"):
        train_worker(arguments(corpus, tmp_path / name, **given))
    assert digests(tmp_path / "a" / "model") == digests(tmp_path / "b" / "model")
    adapter = json.loads((tmp_path / "a" / "model" / "adapter" / "adapter_config.json").read_text())
    assert adapter["target_modules"] == sorted(
        adapter["target_modules"]
    )  # peft keeps a set, in another order every time
    assert not adapter["base_model_name_or_path"]
    base = load_file(unbroken / "model" / "model.safetensors")
    merged = load_file(tmp_path / "a" / "model" / "model.safetensors")
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    assert moved == {name for name in base if "proj" in name}  # norms and embeddings are the base's, bit for bit
    apart = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(unbroken / "model"), str(tmp_path / "a" / "model" / "adapter")
    )
    ids = torch.arange(2, 22)[None]
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "model")(ids).logits
        torch.testing.assert_close(apart(ids).logits, whole, rtol=0, atol=1e-5)


def test_a_plan_is_measured_once_and_leaves_no_trace(corpus, unbroken, tmp_path):
    train_worker(arguments(corpus, tmp_path / "a", compute={"precision": "float32"}))
    plan = json.loads((tmp_path / "a" / "plan.json").read_text())
    assert plan["micro_batch_rows"] in (1, 2, 4, 8)
    train_worker(
        arguments(
            corpus, tmp_path / "b", compute={"precision": "float32", "micro_batch_rows": plan["micro_batch_rows"]}
        )
    )
    assert digests(tmp_path / "a" / "model") == digests(tmp_path / "b" / "model")


def test_a_changed_plan_is_told(corpus, tmp_path):
    train_worker(arguments(corpus, tmp_path, steps=2))
    train_worker(arguments(corpus, tmp_path, steps=2, compute={"precision": "float32", "micro_batch_rows": 2}))
    events = [row["e"] for row in read_journal(tmp_path) if "e" in row]
    assert any("plan changed: micro_batch_rows 4 -> 2" in event for event in events)


def test_a_tokenizer_of_another_model_is_refused(corpus, unbroken, tmp_path):
    train_tokenizer(["entirely other words that make more merges " * 9], 340, 64).save_pretrained(
        tmp_path / "tokenizer"
    )
    given = {**arguments(corpus, tmp_path, model=str(unbroken / "model")), "tokenizer": str(tmp_path / "tokenizer")}
    small = AutoModelForCausalLM.from_pretrained(unbroken / "model")
    small.resize_token_embeddings(290)
    small.save_pretrained(tmp_path / "small")
    with pytest.raises(ModelError, match=r"The tokenizer has \d+ entries, but the model only 290 embeddings"):
        train_worker({**given, "model": str(tmp_path / "small")})


def test_a_row_longer_than_the_model_is_refused(corpus, tmp_path):
    with pytest.raises(ModelError, match=r"seq_len=128 is longer than the model takes \(64\)"):
        train_worker(arguments(corpus, tmp_path, seq_len=128, global_batch_tokens=256))
