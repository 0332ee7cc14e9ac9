"""The loop: equal to plain torch, equal for every cut, and not to be broken by bad steps."""

import json
import math

import pytest
import torch
from small_run import (
    JOINT,
    SEQ_LEN,
    MemoryLog,
    largest_difference,
    run_small,
    small_config,
    small_model,
    small_rows,
    stop_before_step,
    weights,
)
from transformers import LlamaForCausalLM

from genai_core.config.objectives import CausalLm
from genai_core.config.training import AdamW, Cosine, SpikeConfig
from genai_core.data.collate import collate
from genai_core.data.order import rows_for_step
from genai_core.data.packing import pack_examples
from genai_core.errors import ConfigError, InterruptedRunError, TrainingDivergedError
from genai_core.training.evaluate import HeldOut
from genai_core.training.parallel import Group
from genai_core.training.schedules import rate_share


def test_twenty_steps_are_those_of_a_plain_torch_loop(tmp_path):
    """Plain: all rows at once, the model's own forward, cross-entropy over full logits, unfused AdamW."""
    config = small_config(optimizer=AdamW(learning_rate=3e-3, weight_decay=0.1))
    model, plain = small_model(), small_model()
    run_small(tmp_path, model, config, micro_batch_rows=4)
    matrices = [p for p in plain.parameters() if p.ndim == 2]
    vectors = [p for p in plain.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, fused=False, foreach=False)
    rows = small_rows()
    for step in range(20):
        batch = collate(rows.take(rows_for_step(3, step, 8, len(rows))))
        logits = plain(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 61), batch["labels"][:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0, foreach=False)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rate_share(config.schedule, step, 20)
        optimizer.step()
    assert largest_difference(weights(model), weights(plain)) < 1e-9


def test_first_loss_is_the_models_own(tmp_path):
    model, log = small_model(torch.float32), MemoryLog()
    rows = pack_examples([(list(range(2, 2 + SEQ_LEN)), [1] * SEQ_LEN)] * 8, SEQ_LEN)
    batch = collate(rows.take(range(8)))
    theirs = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    run_small(tmp_path, model, small_config(steps=1), rows=rows, log=log)
    assert log.curve("train/loss")[0] == pytest.approx(float(theirs.detach()), rel=1e-6)


@pytest.mark.parametrize("objective", [CausalLm(), JOINT], ids=["causal", "joint"])
def test_micro_batches_give_the_same_weights(tmp_path, objective):
    found = []
    for size in (8, 4, 1):
        model = small_model()
        run_small(tmp_path / str(size), model, small_config(objective=objective), micro_batch_rows=size)
        found.append(weights(model))
    assert largest_difference(found[0], weights(small_model())) > 1e-2  # it has learned something
    assert largest_difference(found[0], found[1]) < 1e-9
    assert largest_difference(found[0], found[2]) < 1e-9


def test_each_term_is_told_with_its_weight_and_its_own_gradient(tmp_path):
    model, told, plain = small_model(), MemoryLog(), small_model()
    run_small(tmp_path / "a", model, small_config(objective=JOINT, evaluate_every_steps=5), log=told)
    run_small(tmp_path / "b", plain, small_config(objective=JOINT, evaluate_every_steps=1000), log=MemoryLog())
    assert largest_difference(weights(model), weights(plain)) == 0.0  # looking changes nothing
    assert [step for step, values in told.points if "grad_norm/contrastive" in values] == [5, 10, 15, 20]
    one = {name: value for step, values in told.points if step == 5 for name, value in values.items()}
    assert one["weight/causal_lm"] * one["loss/causal_lm"] + one["weight/contrastive"] * one[
        "loss/contrastive"
    ] == pytest.approx(one["train/loss"])
    apart = one["grad_norm/causal_lm"] + one["grad_norm/contrastive"]
    assert 0 < one["grad_norm/contrastive"] < apart
    assert one["train/grad_norm"] <= apart + 1e-9  # triangle inequality


def test_float32_losses_agree_across_micro_batches(tmp_path):
    curves = []
    for size in (8, 1):
        log = MemoryLog()
        run_small(tmp_path / str(size), small_model(torch.float32), small_config(), micro_batch_rows=size, log=log)
        curves.append(log.curve("train/loss"))
    assert len(curves[0]) == 20
    assert max(abs(a - b) for a, b in zip(*curves, strict=True)) < 1e-4


def test_bfloat16_learns_and_keeps_float32_weights(tmp_path):
    model, log = small_model(torch.float32), MemoryLog()
    config = small_config(steps=40, optimizer=AdamW(learning_rate=1e-2))
    run_small(tmp_path, model, config, precision="bfloat16", log=log)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert log.curve("train/loss")[-1] < log.curve("train/loss")[0] - 0.3


def test_twenty_examples_are_learned_by_heart(tmp_path):
    model = small_model(torch.float32)
    examples = [([2 + index, 30, 31 + index % 20, 32 + index % 13, 1], [0, 0, 1, 1, 1]) for index in range(20)]
    config = small_config(steps=150, optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0), evaluate_every_steps=1000)
    log = MemoryLog()
    run_small(tmp_path, model, config, rows=pack_examples(examples, SEQ_LEN), log=log)
    assert log.curve("train/loss")[-1] < 0.02
    model.eval()
    for ids, _ in examples:
        out = model.generate(torch.tensor([ids[:2]]), max_new_tokens=6, do_sample=False, eos_token_id=1, pad_token_id=0)
        assert out[0].tolist() == ids  # the whole answer, and it stops by itself


class BadAt:
    """Rows that are good, and a model whose loss is broken at given calls."""

    def __init__(self, model, steps, factor):
        self.calls, self.steps, self.factor = 0, set(steps), factor
        model.get_decoder().register_forward_hook(self)

    def __call__(self, module, arguments, output):
        if self.calls in self.steps:
            output.last_hidden_state = output.last_hidden_state * self.factor
        self.calls += 1
        return output


def test_a_nan_step_is_skipped_and_counted_and_changes_nothing(tmp_path):
    model, log = small_model(), MemoryLog()
    BadAt(model, [7], math.nan)
    seen = []
    log.on_metrics = lambda step: seen.append(weights(model))
    figures = run_small(tmp_path, model, small_config(), log=log)
    assert figures.counters.skipped == 1
    assert figures.counters.step == 20
    assert log.said("step 7 skipped: the loss is nan")
    assert largest_difference(seen[6], seen[7]) == 0.0
    assert largest_difference(seen[7], seen[8]) > 0.0
    json.dumps(log.events[-1][1], allow_nan=False)


def test_a_spike_is_skipped_once_enough_steps_are_known(tmp_path):
    model, log = small_model(), MemoryLog()
    BadAt(model, [3, 18], 30.0)
    run_small(tmp_path, model, small_config(steps=20, max_grad_norm=1e-3), log=log)
    assert [message.split(":")[0] for message, _ in log.events] == [
        "step 18 skipped"
    ]  # step 3: nothing to judge by yet


def test_bad_steps_in_a_row_roll_back_and_the_data_goes_on(tmp_path):
    model, log = small_model(), MemoryLog()
    BadAt(model, range(8, 11), math.inf)
    after = {}
    log.on_metrics = lambda step: after.update({step: weights(model)})
    config = small_config(spikes=SpikeConfig(skip_budget=2, rollback_budget=1))
    figures = run_small(tmp_path, model, config, log=log)
    assert log.said("rolled back to the weights of step 5")
    assert (figures.counters.rollbacks, figures.counters.skipped, figures.counters.step) == (1, 3, 20)
    assert figures.counters.tokens_seen == 20 * 8 * SEQ_LEN
    assert largest_difference(after[11], after[5]) == 0.0
    assert largest_difference(after[8], after[5]) > 0.0
    assert [step for step, _ in log.points if step <= 20] == sorted({step for step, _ in log.points})  # no step twice


def test_no_checkpoint_is_made_between_bad_steps(tmp_path):
    model, log = small_model(), MemoryLog()
    BadAt(model, [4, 5], math.nan)
    run_small(tmp_path, model, small_config(steps=9, spikes=SpikeConfig(skip_budget=1, rollback_budget=1)), log=log)
    assert log.said("rolled back to the weights of step 0")


def test_beyond_all_budgets_the_run_stops_and_says_why(tmp_path):
    model, log = small_model(), MemoryLog()
    BadAt(model, range(6, 100), math.nan)
    config = small_config(spikes=SpikeConfig(skip_budget=1, rollback_budget=1))
    with pytest.raises(TrainingDivergedError) as stopped:
        run_small(tmp_path, model, config, log=log)
    words = str(stopped.value)
    for part in ("diverged at step 9", "the loss is nan", "causal_lm nan", "rows:      #", "model.", "learning_rate"):
        assert part in words
    assert len(log.said("rolled back")) == 1


def test_more_ranks_than_rows_is_a_mistake_with_a_remedy(tmp_path):
    with pytest.raises(
        ConfigError, match=r"compute\.workers=9 is more than the 8 rows .* Set compute\.workers to at most 8"
    ):
        run_small(tmp_path, small_model(), small_config(), group=Group(0, 9, torch.device("cpu")))


def test_stop_keeps_the_state_and_the_resumed_run_is_the_unbroken_one(tmp_path):
    unbroken = small_model()
    run_small(tmp_path / "a", unbroken, small_config())
    first, log = small_model(), MemoryLog()
    with pytest.raises(InterruptedRunError, match="step 7 of 20"):
        run_small(tmp_path / "b", first, small_config(), should_stop=stop_before_step(7))
    resumed = small_model(seed=99)  # its weights must come from the checkpoint
    run_small(tmp_path / "b", resumed, small_config(), log=log)
    assert log.said("resumed at step 7")
    assert largest_difference(weights(unbroken), weights(resumed)) == 0.0


def test_a_stopped_run_rolls_back_to_where_an_unbroken_one_does(tmp_path):
    config = small_config(spikes=SpikeConfig(skip_budget=1, rollback_budget=2))
    unbroken = small_model()
    BadAt(unbroken, [8, 9], math.nan)
    run_small(tmp_path / "a", unbroken, config)
    model = small_model()
    BadAt(model, [8, 9], math.nan)
    with pytest.raises(InterruptedRunError):
        run_small(tmp_path / "b", model, config, should_stop=stop_before_step(7))
    log = MemoryLog()
    run_small(tmp_path / "b", model, config, log=log)
    assert log.said("rolled back to the weights of step 5")
    assert largest_difference(weights(unbroken), weights(model)) == 0.0


def test_a_resumed_run_knows_the_norms_from_before(tmp_path):
    config = small_config(max_grad_norm=1e-3)
    unbroken = small_model()
    BadAt(unbroken, [18], 30.0)
    run_small(tmp_path / "a", unbroken, config)
    with pytest.raises(InterruptedRunError):
        run_small(tmp_path / "b", small_model(), config, should_stop=stop_before_step(17))
    resumed, log = small_model(seed=5), MemoryLog()
    BadAt(resumed, [1], 30.0)  # one pass a step: the second after the resume is step 18
    run_small(tmp_path / "b", resumed, config, log=log)
    assert log.said("step 18 skipped")
    assert largest_difference(weights(unbroken), weights(resumed)) == 0.0


def test_held_out_loss_is_the_models_and_bits_per_byte_follow(tmp_path):
    model, log = small_model(), MemoryLog()
    rows = small_rows(examples=40, seed=5)
    token_bytes = torch.full((61,), 3)
    token_bytes[:20] = 0  # as special tokens
    figures = run_small(tmp_path, model, small_config(steps=2), held_out=HeldOut(rows, token_bytes), log=log)
    batch = collate(rows.take(range(len(rows))))
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    labels = batch["labels"][:, 1:].reshape(-1)
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 61), labels, reduction="none")
    assert figures.held_out.loss_nats == pytest.approx(float(nll.sum() / (labels != -100).sum()), rel=1e-12)
    text = labels >= 20
    assert figures.held_out.bits_per_byte == pytest.approx(
        float(nll[text].sum() / math.log(2) / (3 * text.sum())), rel=1e-12
    )
    assert log.curve("eval/loss_nats")[-1] == pytest.approx(figures.held_out.loss_nats, rel=1e-12)
    assert isinstance(model, LlamaForCausalLM)
    assert model.training


@pytest.mark.parametrize("schedule", [small_config().schedule, Cosine(warmup_fraction=0.1, floor=0.1)])
def test_schedules_rise_hold_and_fall(schedule):
    shares = [rate_share(schedule, step, 100) for step in range(100)]
    warmup = round(schedule.warmup_fraction * 100)
    assert shares[:warmup] == [pytest.approx((step + 1) / warmup) for step in range(warmup)]
    assert max(shares) == 1.0
    assert all(a >= b for a, b in zip(shares[warmup:], shares[warmup + 1 :], strict=False))
    assert 0 < shares[-1] < 0.12
    if isinstance(schedule, Cosine):
        assert shares[-1] == pytest.approx(0.1)
    else:
        assert shares[69] == 1.0 > shares[70]
