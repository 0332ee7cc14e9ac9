"""Rendering: what carries a loss is the answer and its end token, under any template."""

from __future__ import annotations

import pytest
import torch
from tokens_world import (
    BRACKETS,
    CHATML,
    CHATML_MARKED,
    NO_ANSWER,
    NO_END,
    REWRITING,
    TEXTS,
    foreign_tokenizer,
    own_tokenizer,
)

from genai_core.data.collate import IGNORE_INDEX, collate
from genai_core.data.packing import pack_examples
from genai_core.data.templates import (
    DEFAULT_TEMPLATE,
    PrefixViolationError,
    attach_default_template,
    end_of_turn_id,
    end_token_ids,
    render_conversation,
    render_example,
    render_examples,
    render_prompt,
)
from genai_core.errors import DataError, ModelError

TOKENIZERS = {
    "own": own_tokenizer,
    "chatml": lambda: foreign_tokenizer(CHATML),
    "chatml_marked": lambda: foreign_tokenizer(CHATML_MARKED),
    "brackets": lambda: foreign_tokenizer(BRACKETS),
    "default": lambda: foreign_tokenizer(DEFAULT_TEMPLATE),
}


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]()


def decode_trained(tokenizer, ids, mask):
    return tokenizer.decode([token for token, trained in zip(ids, mask, strict=True) if trained])


def safe_texts(tokenizer):
    """Without line breaks at the front, which merge with the header's of templates that end it with one."""
    return TEXTS if tokenizer.chat_template == own_tokenizer().chat_template else [t for t in TEXTS if t.strip() == t]


def test_trained_tokens_decode_to_the_answer_and_its_end(tokenizer):
    for prompt in TEXTS:
        for completion in safe_texts(tokenizer):
            ids, mask = render_example(tokenizer, prompt, completion)
            end = tokenizer.convert_ids_to_tokens(end_of_turn_id(tokenizer))
            assert decode_trained(tokenizer, ids, mask) == completion + end
            assert mask[-1] == 1  # what stands behind the end token is left out
            before = render_prompt(tokenizer, prompt)
            assert ids[: len(before)] == before and not any(mask[: len(before)])


def test_labels_of_a_packed_row_decode_to_the_answers(tokenizer):
    completions = safe_texts(tokenizer)
    examples = [render_example(tokenizer, prompt, answer) for prompt in TEXTS[:2] for answer in completions]
    batch = collate(list(pack_examples(examples, 256, pad_id=tokenizer.pad_token_id)))
    end = tokenizer.convert_ids_to_tokens(end_of_turn_id(tokenizer))
    found = []
    for row in range(len(batch["labels"])):
        for segment in range(int(batch["segment_ids"][row].max()) + 1):
            labels = batch["labels"][row][batch["segment_ids"][row] == segment]
            if (labels != IGNORE_INDEX).any():
                found.append(tokenizer.decode(labels[labels != IGNORE_INDEX].tolist()))
    assert sorted(found) == sorted(answer + end for answer in completions for _ in range(2))


def test_every_answer_of_a_conversation_is_trained_on_and_nothing_else(tokenizer):
    messages = [
        {"role": "user", "content": "first 你好"},
        {"role": "assistant", "content": "one 🎉"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "two\n    indented"},
    ]
    ids, mask = render_conversation(tokenizer, messages)
    end = tokenizer.convert_ids_to_tokens(end_of_turn_id(tokenizer))
    assert decode_trained(tokenizer, ids, mask) == f"one 🎉{end}two\n    indented{end}"
    prompt = render_prompt(tokenizer, "first 你好", "one 🎉", "second")
    assert ids[: len(prompt)] == prompt and mask[len(prompt)] == 1


@pytest.mark.parametrize("name", ["own", "chatml"])
def test_a_system_turn_is_read_not_trained_on(name):
    tokenizer = TOKENIZERS[name]()
    for system in ("be brief", ""):
        turns = [("system", system), ("user", "q"), ("assistant", "answer")]
        ids, mask = render_conversation(tokenizer, [{"role": role, "content": text} for role, text in turns])
        end = tokenizer.convert_ids_to_tokens(end_of_turn_id(tokenizer))
        assert decode_trained(tokenizer, ids, mask) == "answer" + end
        assert system in tokenizer.decode(ids)


def test_an_empty_answer_is_only_its_end():
    ids, mask = render_example(own_tokenizer(), "q", "")
    assert [token for token, trained in zip(ids, mask, strict=True) if trained] == end_token_ids(own_tokenizer())[1:]


def test_the_users_text_cannot_end_a_turn(tokenizer):
    end = end_of_turn_id(tokenizer)
    spelled = tokenizer.convert_ids_to_tokens(end)
    plain = render_prompt(tokenizer, "x stop")
    forged = render_prompt(tokenizer, f"x {spelled} stop")
    assert tokenizer(f"x {spelled} stop")["input_ids"].count(end) == 1  # what a plain call does
    assert forged.count(end) == plain.count(end)


def test_a_batch_renders_as_one_by_one(tokenizer):
    examples = [(prompt, answer) for prompt in TEXTS for answer in safe_texts(tokenizer)] * 5  # more than a batch
    assert render_examples(tokenizer, examples) == [render_example(tokenizer, *example) for example in examples]


def test_stop_tokens_are_found_from_the_template():
    assert [own_tokenizer().convert_ids_to_tokens(i) for i in end_token_ids(own_tokenizer())] == [
        "<|endoftext|>",
        "<|end|>",
    ]
    for template in (CHATML, CHATML_MARKED, BRACKETS, DEFAULT_TEMPLATE):
        foreign = foreign_tokenizer(template)
        assert end_token_ids(foreign) == [foreign.convert_tokens_to_ids("<|im_end|>")]
    tokenizer = foreign_tokenizer(CHATML)
    tokenizer.eos_token = "<|endoftext|>"  # as in base models: then both stop
    assert len(end_token_ids(tokenizer)) == 2
    assert end_of_turn_id(foreign_tokenizer(NO_END)) is None
    assert end_of_turn_id(foreign_tokenizer(NO_ANSWER)) is None


def test_a_changed_template_is_noticed():
    tokenizer = foreign_tokenizer(CHATML)
    assert end_of_turn_id(tokenizer) is not None
    tokenizer.chat_template = NO_END
    assert end_of_turn_id(tokenizer) is None


def test_a_prompt_that_is_no_prefix_is_refused_and_counted():
    with pytest.raises(PrefixViolationError, match="rewrites earlier turns"):
        render_example(foreign_tokenizer(REWRITING), "q", "a")
    tokenizer = foreign_tokenizer(CHATML)
    with pytest.raises(DataError, match="strip it"):
        render_example(tokenizer, "q", "\n    merges with the header's line break")
    good, bad = ("q", "a"), ("q", "\n    a")
    with pytest.raises(PrefixViolationError, match=r"^2 of 1,002 examples"):
        render_examples(tokenizer, [good] * 1000 + [bad] * 2)
    rendered = render_examples(tokenizer, [good] * 999 + [bad])  # 0.1 %
    assert rendered[-1] is None and None not in rendered[:-1]


def test_a_tokenizer_without_a_template_gets_one():
    tokenizer = foreign_tokenizer(None)
    with pytest.raises(ModelError, match="attach_default_template"):
        render_prompt(tokenizer, "q")
    assert end_token_ids(tokenizer) == [tokenizer.eos_token_id]
    assert attach_default_template(tokenizer)
    assert tokenizer.decode(render_prompt(tokenizer, "q")) == "### User:\nq\n\n### Assistant:\n"
    assert not attach_default_template(tokenizer)
    tokenizer.chat_template, tokenizer.eos_token = None, None
    with pytest.raises(ModelError, match="neither a chat template nor an eos"):
        attach_default_template(tokenizer)


def test_a_template_that_refuses_says_so_and_one_that_writes_the_date_is_the_same_tomorrow():
    with pytest.raises(ModelError, match=r"refuses.*only questions"):
        render_prompt(foreign_tokenizer("{{ raise_exception('only questions') }}"), "q")
    dated = foreign_tokenizer("{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}")
    assert dated.decode(render_prompt(dated, "q")) == "26 Jul 2024q"


def test_parity_with_trl_labels():
    """TRL 1.16: completion_mask from common prefix; for a template with nothing behind the end token they are the same."""
    data_utils = pytest.importorskip("trl.data_utils")
    tokenizer = own_tokenizer()
    for prompt in TEXTS[:5]:
        for completion in TEXTS[:5]:
            turns = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": completion}]
            before = data_utils._tokenize(tokenizer, turns[0], add_generation_prompt=True)["input_ids"]
            whole = data_utils._tokenize(tokenizer, turns[0] + turns[1])["input_ids"]
            length = data_utils.common_prefix_length(before, whole)
            ids, mask = render_example(tokenizer, prompt, completion)
            assert ids == list(whole) and mask == [0] * length + [1] * (len(whole) - length)
            batch = collate(list(pack_examples([(ids, mask)], len(ids))))
            assert torch.equal(batch["labels"][0], torch.tensor([-100] * length + list(whole[length:])))
