"""What the tried claims share: a folder of what was made, and a small model where the claims take SmolLM2."""

from __future__ import annotations

import shutil

import pytest
from tried_claim import MODULES, SCALE

from genai_core.claims.arms import BASE, pretrain_arm, small_corpus
from genai_core.claims.base import Setting
from genai_core.config.objectives import CausalLm


@pytest.fixture(scope="session")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Where claims are tried; what one has made another finds."""
    return Setting(tmp_path_factory.mktemp("made"), 0, SCALE, None, 1, MODULES)


@pytest.fixture(scope="session")
def tiny_instruct(tried: Setting) -> Setting:
    """The same with a small model where SmolLM2 would lie."""
    model = pretrain_arm(tried, small_corpus(tried), CausalLm(), 2, base=BASE.model_copy(update={"max_seq_len": 1024}))
    shutil.copytree(model, tried.work / "smollm2")
    return tried
