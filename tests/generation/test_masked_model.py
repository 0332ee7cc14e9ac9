"""The adapter of a real model: transformers' own logits, padding that nobody sees, the shift, and text it has learned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import SEQ_LEN, VOCAB, MemoryLog, run_small, small_config, small_model

from genai_core.config.generation import UnmaskingConfig
from genai_core.config.objectives import MaskedDiffusion
from genai_core.config.training import AdamW
from genai_core.data.packing import pack_examples
from genai_core.generation.masked_model import masked_predictor
from genai_core.generation.unmasking import mask_predict, unmask

MASK = 1


@torch.no_grad()
@pytest.mark.parametrize("offset", [0, 1])
def test_logits_are_the_models_own_and_padding_is_not_seen(offset) -> None:
    model = small_model(torch.float32).eval()
    lengths = torch.tensor([5, 8])
    ids = torch.randint(2, VOCAB, (2, 8), generator=torch.Generator().manual_seed(0))
    asked = torch.zeros(2, 8, dtype=torch.bool)
    asked[0, [1, 4]] = asked[1, 7] = True
    ids[asked] = MASK
    found = masked_predictor(model, MASK, lengths, offset=offset)(ids, asked)
    expected = []
    for row, places in ((0, [1, 4]), (1, [7])):
        alone = ids[row : row + 1, : lengths[row]]
        full = torch.ones(1, 1, alone.shape[1], alone.shape[1], dtype=torch.bool)
        logits = model(input_ids=alone, attention_mask=full, use_cache=False).logits[0]
        expected += [logits[place - offset] for place in places]
    expected = torch.stack(expected)
    assert bool((found[:, MASK] == -torch.inf).all())
    keep = torch.arange(VOCAB) != MASK
    torch.testing.assert_close(found[:, keep], expected[:, keep], rtol=0, atol=2e-5)


def test_a_model_that_has_learned_texts_writes_them(tmp_path) -> None:
    """Three texts that differ everywhere: from masks alone it writes one of them whole, from a piece the right one."""
    texts = torch.randperm(VOCAB - 2, generator=torch.Generator().manual_seed(1))[: 3 * SEQ_LEN].reshape(3, SEQ_LEN) + 2
    texts[:, 0] = 0  # never masked: the document's mark
    rows = pack_examples([(text.tolist(), [0] + [1] * (SEQ_LEN - 1)) for text in texts] * 4, SEQ_LEN)
    model = small_model(torch.float32)
    config = small_config(
        objective=MaskedDiffusion(),
        steps=300,
        global_batch_tokens=12 * SEQ_LEN,
        optimizer=AdamW(learning_rate=1e-2),
        checkpoint_every_steps=300,
    )
    run_small(tmp_path, model, config, rows=rows, micro_batch_rows=12, log=MemoryLog())
    model.eval()
    count = 30
    ids = torch.full((count, SEQ_LEN), MASK)
    ids[:, 0] = 0
    predict = masked_predictor(model, MASK, torch.full((count,), SEQ_LEN))
    names = [str(number) for number in range(count)]
    free = unmask(predict, ids, MASK, UnmaskingConfig(order="random", temperature=0.5), names)
    known = {tuple(text) for text in texts.tolist()}
    written = [tuple(row) for row in free.ids.tolist()]
    assert free.passes == SEQ_LEN - 1
    assert sum(row in known for row in written) >= 27
    assert len({row for row in written if row in known}) == 3, "all of them, not the first alone"
    given = ids.clone()
    given[:, 7] = texts[torch.arange(count) % 3, 7]
    for filled in (
        unmask(predict, given, MASK, UnmaskingConfig(temperature=0, tokens_per_pass=5), names),
        mask_predict(predict, given, MASK, 3, UnmaskingConfig(temperature=0), names),
    ):
        assert filled.passes == 3
        assert (filled.ids == texts[torch.arange(count) % 3]).float().mean() > 0.95
