"""Completions of diffusion models: blocks with a cache against passes without one, and where learned answers end."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import MemoryLog, alone
from tiny_llama import build_model, sentence

from genai_core.config.generation import DiffusionWriter, SamplingConfig, Unmasking, UnmaskingConfig
from genai_core.config.objectives import BlockDiffusion, MaskedDiffusion, writer_of
from genai_core.config.training import AdamW, TrainingConfig
from genai_core.data.documents import Pair
from genai_core.data.masking import Vocabulary
from genai_core.data.templates import end_token_ids, render_prompt
from genai_core.data.tokenizer import document_end_id, train_tokenizer
from genai_core.data.tuning_rows import build_tuning_rows
from genai_core.errors import ModelError
from genai_core.evaluation.bound_worker import bound_rows
from genai_core.generation.diffusion_engine import DiffusionEngine, open_engine
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.types import Request
from genai_core.generation.unmasking import unmask
from genai_core.models.backbone import hidden_states, keep_float64
from genai_core.models.diffusion_folder import read_writer, write_writer
from genai_core.objectives.registry import build_objectives
from genai_core.training.checkpoint import CheckpointFolder
from genai_core.training.engine import Engine
from genai_core.training.worker import LocalKeeper

SIZE, SEQ_LEN = 4, 48


@pytest.fixture(scope="module")
def masking_tokenizer():
    return train_tokenizer([sentence(n, 12) for n in range(80)], 320, 256, mask_token=True)


@pytest.fixture(scope="module")
def wide_model(masking_tokenizer):
    model = build_model(masking_tokenizer, torch.float64)
    keep_float64(model)
    return model


def requests_of(count: int) -> list[Request]:
    return [Request(row_id=f"r{n}", prompt=sentence(n, 1 + 2 * n)) for n in range(count)]


@torch.no_grad()
def without_cache(model, tokenizer, prompt, name, config, offset, room):
    """Return an answer's ids, each pass over all that there is, under the mask of the training."""
    ends = {*end_token_ids(tokenizer), document_end_id(tokenizer)}
    mask_id, row, written, number = tokenizer.mask_token_id, list(prompt), [], 0
    while len(written) < room and ends.isdisjoint(written):
        start = len(row) // SIZE * SIZE
        given = row[start:]
        ids = torch.tensor([[*given, *[mask_id] * (SIZE - len(given))]])

        def predict(ids, asked, start=start, before=row[:start]):
            whole = torch.cat([torch.tensor([before], dtype=torch.long), ids], dim=1)
            place = torch.arange(whole.shape[1])
            hidden = hidden_states(model, whole, place[None], (place[:, None] // SIZE >= place[None] // SIZE)[None])
            at = asked.nonzero()[:, 1] + start - offset
            logits = hidden[0, at] @ model.get_output_embeddings().weight.T
            logits[:, mask_id] = -math.inf
            return logits

        filled = unmask(predict, ids, mask_id, config, [f"{name}/{number}"]).ids[0].tolist()
        written += filled[len(given) :]
        row = row[:start] + filled
        number += 1
    ids = written[:room]
    end = next((at for at, token in enumerate(ids) if token in ends), len(ids) - 1)
    return tuple(ids[: end + 1])


@pytest.mark.parametrize("reads", ["own", "previous"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_blocks_with_a_cache_are_blocks_without_one(masking_tokenizer, wide_model, reads, temperature) -> None:
    """Prompts of 5 lengths in one batch, float64: the same tokens as each alone, everything computed anew every pass."""
    writer = DiffusionWriter(reads=reads, block_length=SIZE, row_tokens=64)
    sampling = SamplingConfig(
        temperature=temperature, max_new_tokens=10, seed=3, unmasking=Unmasking(tokens_per_pass=2, order="margin")
    )
    requests = requests_of(5)
    found = DiffusionEngine(wide_model, masking_tokenizer, writer).generate(requests, sampling)
    config = UnmaskingConfig(temperature=temperature, tokens_per_pass=2, order="margin", seed=3)
    for request, completion in zip(requests, found, strict=True):
        prompt = render_prompt(masking_tokenizer, request.prompt)
        assert completion.n_prompt_tokens == len(prompt)
        expected = without_cache(
            wide_model, masking_tokenizer, prompt, request.row_id, config, int(reads == "previous"), 10
        )
        assert completion.token_ids == expected
    assert len({len(render_prompt(masking_tokenizer, request.prompt)) % SIZE for request in requests}) > 1
    assert len({completion.token_ids for completion in found}) > 1


@pytest.mark.parametrize("block_length", [0, SIZE])
def test_what_is_asked_beside_a_row_does_not_change_it(masking_tokenizer, wide_model, block_length) -> None:
    writer = DiffusionWriter(block_length=block_length, row_tokens=64)
    engine = DiffusionEngine(wide_model, masking_tokenizer, writer)
    sampling = SamplingConfig(max_new_tokens=9, seed=1)
    requests = requests_of(4)
    together = engine.generate(requests, sampling)
    assert [engine.generate([request], sampling)[0].token_ids for request in requests] == [
        one.token_ids for one in together
    ]
    assert all(one.logp < 0 for one in together)
    assert not any(masking_tokenizer.mask_token_id in one.token_ids for one in together)
    [greedy] = engine.generate([Request("r1", requests[1].prompt, greedy=True)], sampling)
    [cold] = engine.generate([requests[1]], sampling.model_copy(update={"temperature": 0.0}))
    assert greedy.token_ids == cold.token_ids
    heard: list[tuple[int, int]] = []
    engine.generate(requests, sampling, lambda index, token: heard.append((index, token)))
    ends = {*end_token_ids(masking_tokenizer), document_end_id(masking_tokenizer)}
    assert heard == [(i, token) for i, one in enumerate(together) for token in one.token_ids if token not in ends]


def test_a_mask_that_is_an_entry_of_the_text_is_not_filled_in_a_prompt(masking_tokenizer, wide_model) -> None:
    word = masking_tokenizer.convert_ids_to_tokens(masking_tokenizer(" file")["input_ids"][0])
    for block_length in (0, SIZE):
        writer = DiffusionWriter(mask_token=word, block_length=block_length, row_tokens=64)
        engine = DiffusionEngine(wide_model, masking_tokenizer, writer)
        [one] = engine.generate([Request("a", "open file read file")], SamplingConfig(max_new_tokens=6))
        assert one.n_tokens <= 6
        assert Vocabulary.of(masking_tokenizer, word).mask_id not in one.token_ids


def test_a_prompt_without_room_is_refused(masking_tokenizer, wide_model) -> None:
    engine = DiffusionEngine(wide_model, masking_tokenizer, DiffusionWriter(row_tokens=64))
    with pytest.raises(ModelError, match="no room for an answer"):
        engine.generate([Request("a", sentence(0, 400))], SamplingConfig())


def test_a_folder_says_how_its_model_writes(tmp_path, masking_tokenizer, wide_model) -> None:
    assert isinstance(open_engine(wide_model, masking_tokenizer, tmp_path), GenerationEngine)
    writer = DiffusionWriter(reads="previous", block_length=8, row_tokens=64)
    write_writer(tmp_path, writer)
    assert read_writer(tmp_path) == writer
    assert isinstance(open_engine(wide_model, masking_tokenizer, tmp_path), DiffusionEngine)
    (tmp_path / "diffusion.json").write_text('{"block": 8}', encoding="utf-8")
    with pytest.raises(ModelError, match="does not say how the model writes"):
        read_writer(tmp_path)


ANSWERS = ["open", "read file", "write text value", "close path name line", "sort list dict join text file"]


@pytest.mark.parametrize(
    "objective",
    [
        MaskedDiffusion(answer_length=12),
        BlockDiffusion(block_length=4),
        BlockDiffusion(block_length=4, reads="previous"),
    ],
    ids=["whole", "blocks", "blocks-shifted"],
)
def test_learned_answers_are_written_and_end_where_they_should(tmp_path, masking_tokenizer, objective) -> None:
    """Five questions by heart, through the tuning's own rows and the engine; answers of 2 to 8 tokens."""
    torch.set_num_threads(1)
    pairs = [Pair(f"p{n}", "answer", "g", "d", sentence(90 + n, 3), text, {}, "real") for n, text in enumerate(ANSWERS)]
    writer = writer_of(objective, SEQ_LEN)
    rows, _ = build_tuning_rows(pairs, [], masking_tokenizer, SEQ_LEN, 0.0, 0, writer=writer)
    model = build_model(masking_tokenizer, initializer_range=0.1).train()
    config = TrainingConfig(
        objective=objective,
        steps=160,
        seq_len=SEQ_LEN,
        global_batch_tokens=6 * SEQ_LEN,
        optimizer=AdamW(learning_rate=3e-3, weight_decay=0.0),
        checkpoint_every_steps=160,
        evaluate_every_steps=160,
    )
    log = MemoryLog()
    Engine(
        model,
        build_objectives(objective, masking_tokenizer),
        rows,
        config,
        group=alone(),
        checkpoints=CheckpointFolder(LocalKeeper(tmp_path), log, 160),
        log=log,
        micro_batch_rows=6,
    ).run()
    model.eval()
    requests = [Request(pair.pair_id, pair.prompt) for pair in pairs]
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=12)
    found = DiffusionEngine(model, masking_tokenizer, writer).generate(requests, greedy)
    assert [one.text.strip() for one in found] == ANSWERS
    assert all(one.finish_reason == "stop" for one in found)

    def bounds(shift: int):
        asked = [
            {"row_id": pair.pair_id, "prompt": pair.prompt, "completion": ANSWERS[(n + shift) % len(ANSWERS)]}
            for n, pair in enumerate(pairs)
        ]
        return bound_rows(model, masking_tokenizer, writer, asked, samples=8)

    right, wrong = bounds(0), bounds(1)
    assert all(a["nll"] + 3 * a["nll_error"] + 3 < b["nll"] for a, b in zip(right, wrong, strict=True))
    assert [one["n_tokens"] for one in right] == [one.n_tokens for one in found]


def test_the_rows_of_a_tuning_hold_filled_answers(masking_tokenizer) -> None:
    pairs = [Pair(f"p{n}", "answer", "g", "d", sentence(90 + n, 3), text, {}, "real") for n, text in enumerate(ANSWERS)]
    bare, filled = (
        build_tuning_rows(pairs, [], masking_tokenizer, SEQ_LEN, 0.0, 0, writer=writer)[1]["trained_tokens"]["real"]
        for writer in (DiffusionWriter(row_tokens=SEQ_LEN), DiffusionWriter(row_tokens=SEQ_LEN, answer_length=12))
    )
    assert filled == 12 * len(ANSWERS)
    assert bare < filled
