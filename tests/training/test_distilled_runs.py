"""Distillation through the real engine: exact however it is cut or stopped, and better than labels where labels are few."""

import json
from pathlib import Path

import pytest
import torch
from small_run import (
    SEQ_LEN,
    VOCAB,
    MemoryLog,
    check_cuts_and_a_stop,
    largest_difference,
    run_small,
    small_config,
    small_model,
    small_rows,
    weights,
)
from transformers import LlamaConfig, LlamaForCausalLM
from worker_case import arguments, digests, make_corpus

from genai_core.config.objectives import CausalLm, Distillation
from genai_core.config.training import AdamW
from genai_core.data.collate import collate
from genai_core.data.tokenizer import load_tokenizer, train_tokenizer
from genai_core.errors import ModelError
from genai_core.models.backbone import keep_float64
from genai_core.models.resolve import resolve_base
from genai_core.training.evaluate import HeldOut
from genai_core.training.worker import train_worker

TEACHER = {"kind": "folder", "path": "t"}
OBJECTIVES = {
    "forward": Distillation(teacher=TEACHER),
    "reverse": Distillation(teacher=TEACHER, divergence="reverse", temperature=2.0),
    "both": Distillation(teacher=TEACHER, divergence="jensen_shannon", beta=0.3, label_weight=0.5),
}


def larger_model() -> LlamaForCausalLM:
    """Return a teacher that is wider and deeper than the student, with more rows than there are tokens."""
    config = LlamaConfig(
        vocab_size=VOCAB + 3,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.2,
        attention_dropout=0.3,  # it is asked in eval mode: none of it may be seen
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    keep_float64(model)
    return model


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_micro_batches_and_a_stop_give_the_same_weights(tmp_path, name):
    config, teacher = small_config(objective=OBJECTIVES[name], steps=12), larger_model()
    before = weights(teacher)
    check_cuts_and_a_stop(tmp_path, config, cuts=(3, 1), frozen={"teacher": teacher})
    assert largest_difference(before, weights(teacher)) == 0.0


def test_the_loss_of_a_step_is_that_of_both_models_full_logits(tmp_path):
    teacher, log, model = larger_model(), MemoryLog(), small_model()
    rows = small_rows()
    config = small_config(objective=OBJECTIVES["both"], steps=1, global_batch_tokens=len(rows) * SEQ_LEN)
    before = small_model()
    run_small(tmp_path, model, config, log=log, frozen={"teacher": teacher})
    batch = collate(rows.take(range(len(rows))))
    with torch.no_grad():
        p, q = (
            one(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
            .logits[:, :-1, :VOCAB]
            .softmax(-1)
            for one in (before, teacher)
        )
    m = 0.3 * q + 0.7 * p
    each = 0.3 * (q * (q / m).log()).sum(-1) + 0.7 * (p * (p / m).log()).sum(-1)
    labels = batch["labels"][:, 1:]
    assert log.curve("loss/distillation")[0] == pytest.approx(float(each[labels != -100].mean()), rel=1e-10)
    plain = -p.gather(2, labels.clamp_min(0)[..., None]).squeeze(2).log()[labels != -100].mean()
    assert log.curve("loss/causal_lm")[0] == pytest.approx(float(plain), rel=1e-10)
    assert log.curve("train/loss")[0] == pytest.approx(float(each[labels != -100].mean() + 0.5 * plain), rel=1e-10)


def test_a_student_of_another_size_comes_nearer_to_its_teacher_and_labels_do_not_bring_it_there(tmp_path):
    """Rows of noise: labels teach nothing that holds elsewhere, the teacher's distributions do."""
    teacher = larger_model()
    fresh = small_rows(examples=40, seed=11)
    held_out = HeldOut(fresh, torch.ones(VOCAB, dtype=torch.int64))
    batch = collate(fresh.take(range(len(fresh))))
    supervised = batch["labels"][:, 1:] != -100

    def distance(model):
        """Mean KL from the teacher on rows that nobody trained on."""
        with torch.no_grad():
            log_p, log_q = (
                one(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
                .logits[:, :-1, :VOCAB]
                .log_softmax(-1)
                for one in (model, teacher)
            )
        return float((log_q.exp() * (log_q - log_p)).sum(-1)[supervised].mean())

    found = {}
    for name, objective in (("taught", OBJECTIVES["forward"]), ("labels", CausalLm())):
        model = small_model()
        config = small_config(
            objective=objective, steps=120, checkpoint_every_steps=120, optimizer=AdamW(learning_rate=1e-2)
        )
        rows = small_rows(examples=600, seed=12)
        run_small(tmp_path / name, model, config, rows=rows, frozen={"teacher": teacher}, held_out=held_out)
        found[name] = distance(model)
    start = distance(small_model())
    assert found["taught"] < 0.75 * start
    assert found["labels"] > 0.95 * start


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def teacher_ref(corpus, tmp_path_factory):
    """Return the reference of a trained teacher, twice as wide as the student."""
    torch.set_num_threads(1)
    work = tmp_path_factory.mktemp("teacher")
    given = arguments(corpus, work, steps=60)
    given["base"] = {**given["base"], "d_model": 64, "n_layers": 3, "d_ff": 96}
    train_worker(given)
    return resolve_base(Distillation(teacher={"kind": "folder", "path": str(work / "model")}).teacher)


def distilled(corpus: Path, work: Path, teacher_ref, **more):
    objective = {"kind": "distillation", "teacher": {"kind": "folder", "path": teacher_ref.uri}}
    given = arguments(corpus, work, **{"objective": objective, **more})
    return {**given, "teacher_ref": teacher_ref.model_dump(mode="json")}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_worker_learns_from_a_published_model_and_again_gives_the_same_bytes(
    corpus, teacher_ref, tmp_path, precision
):
    compute = {"precision": precision, "micro_batch_rows": 4}
    for name in ("a", "b"):
        train_worker(distilled(corpus, tmp_path / name, teacher_ref, steps=40, compute=compute))
    assert digests(tmp_path / "a" / "model") == digests(tmp_path / "b" / "model")
    rows = [
        json.loads(line)["m"] for line in (tmp_path / "a" / "journal.jsonl").read_text().splitlines() if '"m"' in line
    ]
    curve = [row["loss/distillation"] for row in rows if "loss/distillation" in row]
    assert curve[-1] < 0.5 * curve[0]
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert 0 < summary["eval_bits_per_byte"] < 8  # plain cross-entropy, as of any other run


def test_a_teacher_with_other_tokens_is_refused_and_the_difference_told(corpus, teacher_ref, tmp_path):
    other = train_tokenizer(["entirely other words that make more merges " * 9], 320, 64)
    folder = tmp_path / "other"
    model = LlamaForCausalLM.from_pretrained(teacher_ref.uri)
    model.save_pretrained(folder)
    other.save_pretrained(folder)
    ref = resolve_base(Distillation(teacher={"kind": "folder", "path": str(folder)}).teacher)
    with pytest.raises(
        ModelError, match=r"teacher's tokenizer is not that of the data: \d+ entries differ \(\d+ here, \d+ there"
    ):
        train_worker(distilled(corpus, tmp_path / "a", ref))
    ours = load_tokenizer(corpus / "tokenizer")
    ours.eos_token = "<|end|>"
    ours.save_pretrained(folder)
    ref = resolve_base(Distillation(teacher={"kind": "folder", "path": str(folder)}).teacher)
    with pytest.raises(ModelError, match=r"not that of the data: eos_token_id is \d+ here, \d+ there"):
        train_worker(distilled(corpus, tmp_path / "b", ref))
    state = json.loads((corpus / "tokenizer" / "tokenizer.json").read_text())
    state["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    load_tokenizer(corpus / "tokenizer").save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(state))
    ref = resolve_base(Distillation(teacher={"kind": "folder", "path": str(folder)}).teacher)
    with pytest.raises(ModelError, match=r"the vocabulary is the same, but a test text of \d+ tokens is \d+ there"):
        train_worker(distilled(corpus, tmp_path / "c", ref))
