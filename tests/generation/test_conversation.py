"""What was said goes into the prompt as the template writes it, and the oldest of it gives way to the answer."""

from __future__ import annotations

import pytest
import torch
from tiny_llama import sentence

from genai_core.config.generation import SamplingConfig
from genai_core.data.templates import holds_turns, render_messages
from genai_core.generation.conversation import Conversation
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.prompts import encode_request
from genai_core.generation.stream import TextStream
from genai_core.generation.types import Request

SINGLE = "{{- messages[-1]['content'] -}}{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
STRICT = "{%- if messages|length > 1 -%}{{ raise_exception('one question only') }}{%- endif -%}" + SINGLE


def test_earlier_turns_stand_before_the_question(tokenizer):
    talk = Conversation(tokenizer, 256, reserve=16, system="be brief")
    talk.add("open file", "open path")
    talk.add("read line", "read text")
    request = talk.ask("r", "close file")
    messages = [*talk.messages(), {"role": "user", "content": "close file"}]
    assert [one["role"] for one in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert encode_request(tokenizer, request) == render_messages(tokenizer, messages, add_generation_prompt=True)
    assert talk.undo() == "read line" and len(talk.ask("r", "x").turns) == 3
    talk.reset()
    assert talk.ask("r", "x").turns == (("system", "be brief"),)


def test_the_oldest_turns_give_way_and_never_the_system_text(tokenizer):
    talk = Conversation(tokenizer, 256, reserve=64, system="be brief")
    for turn in range(12):
        request = talk.ask("r", sentence(turn, 8))
        assert len(encode_request(tokenizer, request)) + 64 <= 256
        assert request.turns[0] == ("system", "be brief")
        assert len(request.turns) == 1 + 2 * (turn - talk.first), "all that was not dropped"
        talk.add(sentence(turn, 8), sentence(100 + turn, 8))
    assert 0 < talk.first < 11
    assert len(talk.messages()) == 25, "what was dropped from the prompt is still on record"
    alone = talk.ask("r", sentence(0, 400))
    assert alone.turns == (("system", "be brief"),), "too long by itself: the engine says so"


@pytest.mark.parametrize(("template", "holds"), [(None, True), (SINGLE, False), (STRICT, False)])
def test_a_template_without_a_place_for_turns_gets_none(tokenizer, monkeypatch, template, holds):
    if template:
        monkeypatch.setattr(tokenizer, "chat_template", template)
    assert holds_turns(tokenizer, ["user", "assistant"]) is holds
    assert holds_turns(tokenizer, ["system"]) is holds
    talk = Conversation(tokenizer, 256, reserve=16)
    talk.add("open", "file")
    assert len(talk.ask("r", "read").turns) == (2 if holds else 0)
    assert talk.takes_system is holds


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_come_one_by_one_and_join_to_the_completions(model, tokenizer, temperature):
    requests = [Request(f"r{index}", sentence(index, 1 + index)) for index in range(6)]
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=40)
    streams = [TextStream(tokenizer) for _ in requests]
    pieces: list[list[str]] = [[] for _ in requests]
    engine = GenerationEngine(model, tokenizer, max_rows=4)
    tokens: list[list[int]] = [[] for _ in requests]

    def listen(row: int, token: int) -> None:
        tokens[row].append(token)
        pieces[row].append(streams[row].push(token))

    completions = engine.generate(requests, sampling, listen)
    for completion, stream, said, ids in zip(completions, streams, pieces, tokens, strict=True):
        stopped = completion.finish_reason == "stop"
        assert stream.n_tokens == completion.n_tokens - stopped
        assert len(said) == stream.n_tokens
        for n in range(1, len(said) + 1):
            whole, given = tokenizer.decode(ids[:n], skip_special_tokens=True), "".join(said[:n])
            held = whole.removeprefix(given)
            assert given + held == whole and held in ("", "\ufffd", "\ufffd" * 2, "\ufffd" * 3)
            assert not given.endswith("\ufffd") or held == "\ufffd" * 3, "a half character is never given out"
        assert "".join(said) + stream.finish(completion.text) == completion.text
    assert completions == engine.generate(requests, sampling), "watching changes nothing"


def test_half_a_character_waits_for_the_other_half(tokenizer):
    ids = tokenizer("a€b", add_special_tokens=False)["input_ids"]
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids]
    assert [piece for piece in pieces if piece] == ["a", "€", "b"] and len(ids) == 5


def test_bytes_that_are_no_character_do_not_hold_the_text_back(tokenizer):
    lone = tokenizer("€", add_special_tokens=False)["input_ids"][1]  # never a character's first byte
    stream = TextStream(tokenizer)
    pieces = [stream.push(lone) for _ in range(200)]
    assert pieces == ["", "", ""] + 197 * ["\ufffd"]
    assert stream.finish(200 * "\ufffd") == 3 * "\ufffd"


def test_what_the_listener_raises_ends_the_generation_and_the_engine_goes_on(model, tokenizer):
    engine = GenerationEngine(model, tokenizer)
    sampling = SamplingConfig(temperature=0, max_new_tokens=20)
    requests = [Request("r", "open file read")]
    before = engine.generate(requests, sampling)

    def stop(_: int, token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(requests, sampling, stop)
    assert engine.generate(requests, sampling) == before
    assert not torch.is_inference_mode_enabled()
