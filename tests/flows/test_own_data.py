"""Own text in a folder: run, run again, add a document, run again. What the new document touches is computed, no more."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import yaml
from homes import Home
from test_lifecycle import by_name

pytestmark = pytest.mark.platform

TRAINING = {
    "steps": 4,
    "global_batch_tokens": 1024,
    "checkpoint_every_steps": 2,
    "evaluate_every_steps": 4,
    "optimizer": {"kind": "muon"},
}
RECIPE = {
    "name": "own-text",
    "data": {
        "source": {"kind": "text", "path": "./my-text"},
        "pairs": {"kind": "quotes"},
        "split": {"heldout_fraction": 0.25, "sealed_fraction": 0.25},
        "tokenizer": {"kind": "train", "vocab_size": 512},
    },
    "base": {"kind": "scratch", "n_layers": 2, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 128},
    "repeat_share": 0.2,
    "pretraining": TRAINING,
    "finetuning": TRAINING,
    "recursion": {"generations": 0},
    "correction": {"prompts": 8, "samples_per_prompt": 1, "sampling": {"max_new_tokens": 8}},
    "evaluation": {"max_documents": 8, "max_prompts": 8, "max_new_tokens": 8, "bootstrap_draws": 100},
    # so little training may make anything of the model: here the gate shall let it through
    "promotion": {
        "model_name": "own-text",
        "gate": {"max_bits_per_byte_increase": 20.0, "min_answer_loss_gain": 0.0, "min_cases": 1},
    },
    "compute": {"precision": "float32", "micro_batch_rows": 4, "workers": 1},
}


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {name: stage["status"] for name, stage in by_name(report).items()}


def digest(report: dict[str, Any], stage: str) -> str:
    return by_name(report)[stage]["artifact"]["digest"]


def test_a_new_document_moves_the_digest_and_the_stages_behind_it_follow(tmp_path: Path) -> None:
    home = Home(tmp_path)
    text = tmp_path / "my-text"
    text.mkdir()
    names = sorted(topics, key=lambda name: -len(topics[name]))[:41]
    for name in names[:40]:
        (text / f"{name}.txt").write_text(topics[name], encoding="utf-8")
    recipe = tmp_path / "own.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")

    code, first, out = home.run(str(recipe))
    assert code in (0, 3), out
    assert statuses(first)["augment"] == "computed"

    (text / f"{names[0]}.txt").touch()  # another time is not another content
    code, again, out = home.run(str(recipe))
    assert code in (0, 3), out
    assert set(statuses(again).values()) <= {"reused", "skipped", "refused"}, out
    assert digest(again, "augment") == digest(first, "augment")
    assert digest(again, "pretrain") == digest(first, "pretrain")

    (text / f"{names[40]}.txt").write_text(topics[names[40]], encoding="utf-8")
    code, grown, out = home.run(str(recipe))
    assert code in (0, 3), out
    for stage in ("augment", "pretrain", "finetune", "sample-corrections", "evaluate-base", "evaluate-candidate"):
        assert statuses(grown)[stage] == "computed", (stage, out)
        assert digest(grown, stage) != digest(first, stage), stage

    (text / f"{names[40]}.txt").unlink()  # and back: everything is still there
    code, back, out = home.run(str(recipe))
    assert code in (0, 3), out
    assert digest(back, "pretrain") == digest(first, "pretrain")
    assert {statuses(back)[stage] for stage in ("augment", "pretrain", "finetune")} == {"reused"}
