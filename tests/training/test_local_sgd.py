"""Local SGD and DiLoCo: what they must equal, what they must not, and that no crash and no process count shows."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from small_run import (
    SEQ_LEN,
    VOCAB,
    MemoryLog,
    alone,
    largest_difference,
    run_small,
    small_config,
    small_model,
    small_rows,
    weights,
)

from genai_core.config.base import canonical
from genai_core.config.training import AdamW, LocalSgd, Muon, Sgd, SpikeConfig, Wsd
from genai_core.data.collate import collate
from genai_core.data.order import rows_for_step
from genai_core.data.packing import pack_examples
from genai_core.errors import ConfigError, InterruptedRunError, TrainingDivergedError
from genai_core.storage.digest import digest_file
from genai_core.training.evaluate import HeldOut
from genai_core.training.parallel import Group
from genai_core.training.schedules import rate_share

FREE = 1e9  # a gradient norm that is never reached: clipping looks at one worker's gradient alone
EVERY_STEP = LocalSgd(workers=4, inner_steps=1, outer_learning_rate=1.0, outer_momentum=0.0)
DILOCO = LocalSgd(workers=4, inner_steps=5)


def plain(**changes):
    return small_config(**{"max_grad_norm": FREE, "steps": 10, **changes})


def full_rows(rows):
    """Return rows of one segment, every token of which is trained on: all workers see equally many."""
    return pack_examples([(ids, [1] * SEQ_LEN) for ids in rows], SEQ_LEN)


def trained(folder, config, *, log=None, **more):
    model = small_model()
    figures = run_small(folder, model, config, log=log, micro_batch_rows=2, **more)
    return weights(model), figures


def test_every_step_with_inner_sgd_is_synchronous_sgd(tmp_path):
    """Also where workers see different numbers of trained tokens, as they do in these rows."""
    inner = Sgd(learning_rate=0.05)
    one, _ = trained(tmp_path / "sync", plain(optimizer=inner))
    two, _ = trained(tmp_path / "local", plain(optimizer=inner, exchange=EVERY_STEP))
    assert largest_difference(one, weights(small_model())) > 1e-2
    assert largest_difference(one, two) < 1e-14


def test_every_step_with_inner_adamw_is_not_synchronous_adamw(tmp_path):
    """The mean of normalised steps is not the normalised mean."""
    one, _ = trained(tmp_path / "sync", plain())
    two, _ = trained(tmp_path / "local", plain(exchange=EVERY_STEP))
    assert largest_difference(one, two) > 1e-3


@pytest.mark.parametrize("inner", [AdamW(learning_rate=3e-3), Sgd(learning_rate=0.05, momentum=0.9), Muon()])
def test_one_worker_without_an_outer_step_is_its_inner_optimizer(tmp_path, inner):
    settings = LocalSgd(workers=1, inner_steps=5, outer_learning_rate=1.0, outer_momentum=0.0)
    one, _ = trained(tmp_path / "sync", plain(optimizer=inner))
    two, _ = trained(tmp_path / "local", plain(optimizer=inner, exchange=settings))
    # theta - (theta - theta_1) is theta_1 but for rounding, which Muon's bfloat16 makes larger
    assert largest_difference(one, two) < (1e-2 if inner.kind == "muon" else 1e-12)
    three, _ = trained(tmp_path / "outer", plain(optimizer=inner, exchange=LocalSgd(workers=1, inner_steps=5)))
    assert largest_difference(one, three) > 1e-2  # with the outer step it is not


def test_two_rounds_are_those_of_the_paper_written_out(tmp_path):
    """Two workers as two runs of the plain engine, the mean and the outer Nesterov step by torch's own SGD."""
    rows = full_rows(np.random.Generator(np.random.PCG64(5)).integers(2, VOCAB, (40, SEQ_LEN)).tolist())
    settings = LocalSgd(workers=2, inner_steps=5, outer_learning_rate=0.7, outer_momentum=0.9)
    found, _ = trained(tmp_path / "local", plain(exchange=settings), rows=rows)

    shared = small_model()
    outer = torch.optim.SGD(shared.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    locals_ = [small_model(), small_model()]
    inner = [
        torch.optim.AdamW(
            [
                {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
                {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr=3e-3,
            betas=(0.9, 0.95),
        )
        for model in locals_
    ]
    for step in range(10):
        indices = rows_for_step(3, step, 8, len(rows))
        for index, (model, optimizer) in enumerate(zip(locals_, inner, strict=True)):
            batch = collate(rows.take(indices[4 * index : 4 * index + 4]))
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, VOCAB), batch["labels"][:, 1:].reshape(-1)
            )
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * rate_share(Wsd(), step, 10)
            optimizer.step()
        if step % 5 == 4:
            with torch.no_grad():
                for parameter, first, second in zip(
                    shared.parameters(), locals_[0].parameters(), locals_[1].parameters(), strict=True
                ):
                    parameter.grad = parameter - (first + second) / 2
            outer.step()
            with torch.no_grad():
                for model in locals_:
                    for parameter, own in zip(shared.parameters(), model.parameters(), strict=True):
                        own.copy_(parameter)
    assert largest_difference(found, weights(shared)) < 1e-12


def test_a_run_killed_in_mid_round_and_resumed_is_the_unbroken_one_bit_for_bit(tmp_path):
    config = plain(steps=20, exchange=DILOCO, optimizer=AdamW(learning_rate=1e-3))
    held_out = HeldOut(small_rows(examples=20, seed=9), torch.ones(VOCAB, dtype=torch.int64))
    whole_log = MemoryLog()
    whole, figures = trained(tmp_path / "whole", config, held_out=held_out, log=whole_log)

    class Killed(Exception):
        pass

    model, log = small_model(), MemoryLog()
    passes = {"count": 0}

    def die(module, arguments, output):
        passes["count"] += 1
        if passes["count"] == 4 * 12 + 1:  # four workers, one pass each: in step 13, two steps into the third round
            raise Killed

    hook = model.get_decoder().register_forward_hook(die)
    with pytest.raises(Killed):
        run_small(tmp_path / "broken", model, config, log=log, micro_batch_rows=2)
    hook.remove()
    resumed, again = trained(tmp_path / "broken", config, held_out=held_out, log=log)
    assert log.said("resumed at step 10")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert again.counters == figures.counters
    assert again.held_out == figures.held_out
    assert log.curve("train/loss") == whole_log.curve("train/loss")


@pytest.mark.parametrize("lost", ["worker-00002.safetensors", "outer.safetensors"])
def test_every_workers_moments_and_the_outer_momentum_matter_for_a_resume(tmp_path, lost):
    """The sanity half of the test above: a checkpoint without one of them ends elsewhere."""
    config = plain(steps=20, exchange=DILOCO, optimizer=AdamW(learning_rate=1e-3))
    whole, _ = trained(tmp_path / "whole", config)
    stops = iter([False, False, True])
    with pytest.raises(InterruptedRunError):
        trained(tmp_path / "broken", config, should_stop=lambda: next(stops))
    folder = tmp_path / "broken" / "checkpoints" / "step-00000010"
    content = load_file(folder / lost)
    assert content
    save_file({name: torch.zeros_like(tensor) for name, tensor in content.items()}, folder / lost)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][lost] = [(folder / lost).stat().st_size, digest_file(folder / lost)]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    resumed, _ = trained(tmp_path / "broken", config)
    assert largest_difference(whole, resumed) > 1e-6


def test_figures_of_a_round_are_told_step_by_step_and_the_exchange_once(tmp_path):
    log, sync = MemoryLog(), MemoryLog()
    trained(tmp_path / "local", plain(exchange=DILOCO), log=log)
    trained(tmp_path / "sync", plain(), log=sync)
    assert [step for step, values in log.points if "train/loss" in values] == list(range(1, 11))
    assert log.curve("train/loss")[0] == pytest.approx(
        sync.curve("train/loss")[0], rel=1e-12
    )  # the same weights and rows
    assert log.curve("count/causal_lm") == sync.curve("count/causal_lm")
    assert log.curve("train/learning_rate") == sync.curve("train/learning_rate")
    assert len(log.curve("local_sgd/pseudo_gradient_norm")) == 2
    assert log.curve("local_sgd/bytes_sent") == [0.0, 0.0]  # one process
    assert all(1 / 4 <= value <= 1 for value in log.curve("local_sgd/agreement"))


def test_workers_on_the_same_rows_agree_fully(tmp_path):
    rows = full_rows([list(range(2, 2 + SEQ_LEN))] * 8)
    log = MemoryLog()
    trained(tmp_path, plain(exchange=DILOCO), rows=rows, log=log)
    assert log.curve("local_sgd/agreement") == pytest.approx([1.0, 1.0], abs=1e-9)


def test_a_worker_skips_alone_and_past_the_budget_all_go_back(tmp_path):
    model, log = small_model(), MemoryLog()
    passes = {"count": 0}

    def break_one_worker(module, arguments, output):
        passes["count"] += 1
        step, worker = divmod(passes["count"] - 1, 4)
        if worker == 2 and step in (1, 6, 7, 8):  # once in the first round, three times in a row in the second
            output.last_hidden_state = output.last_hidden_state * float("nan")
        return output

    model.get_decoder().register_forward_hook(break_one_worker)
    config = plain(steps=20, exchange=DILOCO, spikes=SpikeConfig(skip_budget=2, rollback_budget=1))
    figures = run_small(tmp_path, model, config, log=log, micro_batch_rows=2)
    assert figures.counters.skipped == 4
    assert figures.counters.rollbacks == 0  # it took a step again before the round ended
    assert len(log.said("worker steps skipped")) == 2
    assert "worker 2: step 1: the loss is nan" in str(log.events)
    assert all(torch.isfinite(tensor).all() for tensor in weights(model).values())

    model, log, passes["count"] = small_model(), MemoryLog(), 0

    def break_it_for_long(module, arguments, output):
        passes["count"] += 1
        step, worker = divmod(passes["count"] - 1, 4)
        if worker == 1 and 6 <= step < last:
            output.last_hidden_state = output.last_hidden_state * float("nan")
        return output

    last = 10
    model.get_decoder().register_forward_hook(break_it_for_long)
    figures = run_small(tmp_path / "long", model, config, log=log, micro_batch_rows=2)
    assert figures.counters.rollbacks == 1
    assert log.said("rolled back to the weights of step 5")

    last, passes["count"] = 99, 0
    model = small_model()
    model.get_decoder().register_forward_hook(break_it_for_long)
    with pytest.raises(TrainingDivergedError, match=r"a worker skipped \d+ steps in a row \(worker 1: step 10"):
        run_small(tmp_path / "lost", model, config, log=MemoryLog(), micro_batch_rows=2)


def test_what_does_not_fit_is_refused_with_its_numbers():
    with pytest.raises(ValidationError, match=r"checkpoint_every_steps=5 is not a multiple of exchange.inner_steps=4"):
        small_config(exchange=LocalSgd(inner_steps=4))
    with pytest.raises(ValidationError, match=r"exchange.workers=9 is more than the 8 rows of a step"):
        small_config(exchange=LocalSgd(workers=9, inner_steps=5))


def test_processes_that_do_not_divide_the_workers_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"compute.workers=3 processes cannot share training.exchange.workers=4"):
        trained(tmp_path, plain(exchange=DILOCO), group=Group(0, 3, torch.device("cpu")))


def test_it_is_part_of_the_identity_and_its_absence_changes_no_key():
    assert "exchange" not in canonical(small_config())
    assert canonical(small_config(exchange=DILOCO))["exchange"]["workers"] == 4


def test_rows_are_added_in_their_order():
    rows = torch.tensor([[1e16], [1.0], [-1e16], [1.0]], dtype=torch.float64)
    assert float(alone().sum_ordered(rows)) == 1.0  # another order gives 0 or 2
