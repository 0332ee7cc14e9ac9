from __future__ import annotations

import pytest
import torch
from tiny_llama import build_model, sentence

from genai_core.data.tokenizer import train_tokenizer


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([sentence(seed, 30) for seed in range(50)], vocab_size=320, max_length=256)


@pytest.fixture(scope="session")
def model(tokenizer):
    return build_model(tokenizer)
