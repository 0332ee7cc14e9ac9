"""The engine says what transformers' own generate says, whatever the batch, and draws the same noise for a row always."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_llama import build_model, sentence

from genai_core.config.generation import SamplingConfig
from genai_core.data.templates import render_prompt
from genai_core.errors import ModelError
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.types import Request

GREEDY = SamplingConfig(temperature=0, max_new_tokens=24)
SAMPLED = SamplingConfig(temperature=1.0, max_new_tokens=24, seed=7)


def requests_of(count: int) -> list[Request]:
    """Prompts of very different lengths, some equal to each other."""
    return [Request(f"row-{i}", sentence(i % 9, 1 + (i * 7) % 40)) for i in range(count)]


def generate_alone(model, tokenizer, prompt: list[int], ends: list[int], max_new_tokens: int) -> list[int]:
    """Return the new tokens of transformers' greedy generate for one unpadded prompt."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    return out[0, len(prompt) :].tolist()


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def spoken(request, tokenizer):
    """A model, requests, their prompts, and what transformers says to each, unpadded and alone, 24 tokens."""
    model = build_model(tokenizer, attn_implementation=request.param)
    assert model.config._attn_implementation == request.param
    requests = requests_of(24)
    prompts = [render_prompt(tokenizer, request.prompt) for request in requests]
    return model, requests, prompts, [generate_alone(model, tokenizer, prompt, [-1], 24) for prompt in prompts]


def early_end(said: list[list[int]]) -> int:
    """Return a token that some rows say and others never, to serve as an end token."""
    counts = {token: sum(token in row for row in said) for row in said for token in row}
    return next(token for token in sorted(counts) if 0.2 * len(said) < counts[token] < 0.8 * len(said))


@pytest.mark.parametrize("limits", [{}, {"max_rows": 5, "prefill_tokens": 64}, {"cache_bytes": 1}])
def test_greedy_equals_transformers_generate_with_early_stops(spoken, tokenizer, limits):
    model, requests, prompts, said = spoken
    engine = GenerationEngine(model, tokenizer, **limits)
    ends = [early_end(said), *engine._ends]
    engine._ends = ends
    completions = engine.generate(requests, GREEDY)
    stops = [next((i + 1 for i, token in enumerate(row) if token in ends), 24) for row in said]
    assert [list(c.token_ids) for c in completions] == [row[:stop] for row, stop in zip(said, stops, strict=True)]
    shortest = stops.index(min(stops))
    alone = generate_alone(model, tokenizer, prompts[shortest], ends, 24)
    assert list(completions[shortest].token_ids) == alone and len(alone) < 24
    assert [completion.row_id for completion in completions] == [request.row_id for request in requests]
    assert [completion.n_prompt_tokens for completion in completions] == [len(prompt) for prompt in prompts]
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    assert len({completion.n_tokens for completion in completions}) > 3


def test_logp_is_that_of_a_plain_forward_pass_at_temperature_one(tokenizer):
    model = build_model(tokenizer, torch.float64)
    requests = requests_of(6)
    sampling = SamplingConfig(temperature=0.7, top_k=20, top_p=0.9, max_new_tokens=12, seed=3)
    for request, completion in zip(
        requests, GenerationEngine(model, tokenizer).generate(requests, sampling), strict=True
    ):
        prompt = render_prompt(tokenizer, request.prompt)
        ids = torch.tensor([prompt + list(completion.token_ids)])
        with torch.no_grad():
            logps = model(ids, use_cache=False).logits[0].log_softmax(-1)
        said = logps[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).sum()
        assert completion.logp == pytest.approx(float(said), abs=1e-10)


def test_a_row_says_the_same_alone_in_a_batch_and_in_another_order(model, tokenizer):
    requests = requests_of(16)
    together = {c.row_id: c for c in GenerationEngine(model, tokenizer).generate(requests, SAMPLED)}
    small = GenerationEngine(model, tokenizer, max_rows=3, prefill_tokens=32)
    backwards = {c.row_id: c for c in small.generate(requests[::-1], SAMPLED)}
    alone = {r.row_id: GenerationEngine(model, tokenizer).generate([r], SAMPLED)[0] for r in requests}
    for row_id, completion in together.items():
        assert completion.token_ids == backwards[row_id].token_ids == alone[row_id].token_ids
    # the other half: the same prompt under another row id or seed says something else
    same_prompt = [Request(f"sample-{i}", requests[3].prompt) for i in range(8)]
    texts = {c.token_ids for c in GenerationEngine(model, tokenizer).generate(same_prompt, SAMPLED)}
    other_seed = GenerationEngine(model, tokenizer).generate(requests, SAMPLED.model_copy(update={"seed": 8}))
    assert len(texts) == 8
    assert [c.token_ids for c in other_seed] != [c.token_ids for c in together.values()]


def test_a_greedy_row_is_greedy_among_sampled_ones(model, tokenizer):
    hot, cold = SamplingConfig(temperature=1.0, max_new_tokens=12), SamplingConfig(temperature=0.0, max_new_tokens=12)
    engine = GenerationEngine(model, tokenizer)
    sampled = engine.generate(requests_of(6), hot)
    mixed = engine.generate(
        [replace(request, greedy=index % 2 == 0) for index, request in enumerate(requests_of(6))], hot
    )
    greedy = engine.generate(requests_of(6), cold)
    assert [one.token_ids for one in mixed[::2]] == [one.token_ids for one in greedy[::2]]
    assert [one.token_ids for one in mixed[1::2]] == [one.token_ids for one in sampled[1::2]]
    assert [one.token_ids for one in mixed[::2]] != [one.token_ids for one in sampled[::2]]


def test_the_same_call_twice_is_identical_to_the_last_bit(model, tokenizer):
    first = GenerationEngine(model, tokenizer).generate(requests_of(10), SAMPLED)
    assert GenerationEngine(model, tokenizer).generate(requests_of(10), SAMPLED) == first


def test_the_longest_possible_answer_then_an_error_that_names_the_row(tokenizer):
    model = build_model(tokenizer, max_position_embeddings=48)
    engine = GenerationEngine(model, tokenizer)
    engine._ends = []
    fits = Request("fits", sentence(1, 20))
    length = len(render_prompt(tokenizer, fits.prompt))
    completion = engine.generate([fits], SamplingConfig(temperature=0, max_new_tokens=64))[0]
    assert (completion.n_tokens, completion.finish_reason) == (48 - length, "length")
    with pytest.raises(ModelError, match=r"row 'long' has \d\d\d tokens and the model holds 48"):
        engine.generate([fits, Request("long", sentence(1, 300))], GREEDY)


def test_text_leaves_the_end_token_out_and_raw_prompts_have_no_template(model, tokenizer):
    requests = [Request("chat", "open file"), Request("raw", "open file", raw=True)]
    chat, raw = GenerationEngine(model, tokenizer).generate(requests, GREEDY)
    assert raw.n_prompt_tokens == 1 + len(tokenizer("open file", add_special_tokens=False)["input_ids"])
    assert chat.n_prompt_tokens == len(render_prompt(tokenizer, "open file"))
    engine = GenerationEngine(model, tokenizer)
    engine._ends = [chat.token_ids[2]]
    stopped = engine.generate(requests[:1], GREEDY)[0]
    n = chat.token_ids.index(chat.token_ids[2]) + 1
    assert stopped.token_ids == chat.token_ids[:n]
    assert stopped.text == tokenizer.decode(chat.token_ids[: n - 1], skip_special_tokens=True)


def test_no_requests_no_completions(model, tokenizer):
    assert GenerationEngine(model, tokenizer).generate([], GREEDY) == []


def test_a_window_shorter_than_the_row_is_refused(tokenizer):
    model = build_model(tokenizer)
    model.config.sliding_window = 16
    with pytest.raises(ModelError, match="window of 16 tokens"):
        GenerationEngine(model, tokenizer).generate(requests_of(3), GREEDY)
