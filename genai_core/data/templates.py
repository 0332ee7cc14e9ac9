"""Prompt and answer -> token ids under a chat template, and which of them are trained on.

    <|user|> What closes a file? <|end|> <|assistant|> file.close() <|end|>
       0     0    0     0    0     0          0          1   1  1     1      loss_mask

The mask comes from prefix lengths: what is rendered up to the generation prompt must be an exact prefix of the whole,
token by token. Both are rendered by the template in one piece, never glued together from separately tokenised strings,
and strings of the user's that spell a special token are encoded as letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerFast

from genai_core.errors import DataError, ModelError

MAX_VIOLATION_SHARE = 0.001  # objectives.md 8.10: above this it is the template, not the row
BATCH_EXAMPLES = 256

# For tokenizers that come without a template, so nothing may be added to their vocabulary.
DEFAULT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '### ' + message['role'] | capitalize + ':\n' + message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}"
    "{{- '\n\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '### Assistant:\n' -}}{%- endif -%}"
)

# Some templates write today's date: the same recipe must give the same rows tomorrow. The date is Llama 3's own default.
_FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"

_PROBE_PROMPT, _PROBE_ANSWER = "zqprompt", "zqanswer"


class PrefixViolationError(DataError):
    """The prompt's tokens are not a prefix of the whole example's tokens, so the answer cannot be marked."""


def attach_default_template(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Give a tokenizer without a chat template a plain one; return whether that was needed.

    Raises:
        ModelError: the tokenizer has neither an eos nor a sep token, so no answer could end.
    """
    if tokenizer.chat_template:
        return False
    if tokenizer.eos_token is None and tokenizer.sep_token is None:
        raise ModelError("The tokenizer has neither a chat template nor an eos token. Set eos_token in its config.")
    # an encoder's tokenizer closes texts with [SEP]; its pairs are only looked at, by the preflight
    end = "eos_token" if tokenizer.eos_token is not None else "sep_token"
    tokenizer.chat_template = DEFAULT_TEMPLATE.replace("eos_token", end)
    return True


def chat_messages(
    prompt: str, draft: str = "", remark: str = "", turns: Sequence[tuple[str, str]] = ()
) -> list[dict[str, str]]:
    """Return the turns of a request, (role, text) of earlier ones first; a draft and a remark on it add two turns."""
    messages = [{"role": role, "content": text} for role, text in turns] + [{"role": "user", "content": prompt}]
    if draft or remark:
        messages += [{"role": "assistant", "content": draft}, {"role": "user", "content": remark}]
    return messages


def render_messages(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool
) -> list[int]:
    """Return the ids of a conversation, with the header of the assistant's next turn or without.

    Raises:
        ModelError: the tokenizer has no chat template, or its template refuses the conversation.
    """
    ids: list[int] = _apply(tokenizer, messages, add_generation_prompt=add_generation_prompt, tokenize=True)
    return ids


def render_prompt(
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    draft: str = "",
    remark: str = "",
    turns: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """Return the ids of a request up to and including the generation prompt."""
    return render_messages(tokenizer, chat_messages(prompt, draft, remark, turns), add_generation_prompt=True)


def holds_turns(tokenizer: PreTrainedTokenizerFast, roles: Sequence[str]) -> bool:
    """Return whether the chat template shows turns of these roles before a question, in their order."""
    turns = [(role, f"{_PROBE_PROMPT}{index}") for index, role in enumerate(roles)]
    try:
        text: str = _apply(
            tokenizer, chat_messages(_PROBE_ANSWER, turns=turns), add_generation_prompt=True, tokenize=False
        )
    except ModelError:
        return False
    places = [text.find(probe) for probe in [*(probe for _, probe in turns), _PROBE_ANSWER]]
    return -1 not in places and places == sorted(places)


def render_example(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """Return ids and loss_mask (1: trained on) of a prompt and its answer; see `render_conversation`."""
    return render_conversation(tokenizer, [*chat_messages(prompt), {"role": "assistant", "content": completion}])


def render_conversation(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[dict[str, str]]
) -> tuple[list[int], list[int]]:
    """Return ids and loss_mask of a conversation: 1 on every assistant turn and its end token, 0 on headers and others.

    What a template writes after the end token (ChatML: a line break) is never generated, so it is not trained on, and
    after the last turn it is left out.

    Raises:
        PrefixViolationError: the turns before an answer are not a prefix, token by token, of those with it.
    """
    whole = render_messages(tokenizer, messages, add_generation_prompt=False)
    mask = [0] * len(whole)
    end = len(whole)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render_messages(tokenizer, messages[:index], add_generation_prompt=True) if index else []
        is_last = index + 1 == len(messages)
        after = whole if is_last else render_messages(tokenizer, messages[: index + 1], add_generation_prompt=False)
        stop = _find_answer_end(tokenizer, before, after, whole)
        mask[len(before) : stop] = [1] * (stop - len(before))
        end = stop if is_last else end
    return whole[:end], mask[:end]


def render_examples(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]] | None]:
    """Return `render_example` of each (prompt, completion), in batches; None for one whose prompt is not a prefix.

    Raises:
        PrefixViolationError: more than 0.1 % of the examples are not; names the count and the first.
    """
    rendered: list[tuple[list[int], list[int]] | None] = []
    violations: list[str] = []
    for start in range(0, len(examples), BATCH_EXAMPLES):
        prompts = [chat_messages(prompt) for prompt, _ in examples[start : start + BATCH_EXAMPLES]]
        answers = [{"role": "assistant", "content": answer} for _, answer in examples[start : start + BATCH_EXAMPLES]]
        befores = _render_batch(tokenizer, prompts, add_generation_prompt=True)
        wholes = _render_batch(
            tokenizer,
            [[*prompt, answer] for prompt, answer in zip(prompts, answers, strict=True)],
            add_generation_prompt=False,
        )
        for before, whole in zip(befores, wholes, strict=True):
            try:
                stop = _find_answer_end(tokenizer, before, whole, whole)
            except PrefixViolationError as error:
                rendered.append(None)
                violations.append(str(error))
            else:
                rendered.append((whole[:stop], [0] * len(before) + [1] * (stop - len(before))))
    if len(violations) > MAX_VIOLATION_SHARE * len(examples):
        raise PrefixViolationError(
            f"{len(violations):,} of {len(examples):,} examples have a prompt that is not a prefix of the whole "
            f"(at most {MAX_VIOLATION_SHARE:.1%} may be dropped). The first: {violations[0]}"
        )
    return rendered


def end_of_turn_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the special token with which the chat template closes an answer, found by rendering one; None: it has none."""
    return _find_end_of_turn(tokenizer, str(tokenizer.chat_template))


def end_token_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the ids at which generation stops, ascending: the eos token and the template's end-of-turn token."""
    ids = {tokenizer.eos_token_id, end_of_turn_id(tokenizer) if tokenizer.chat_template else None}
    return sorted(int(index) for index in ids if index is not None)


@lru_cache(maxsize=16)
def _find_end_of_turn(tokenizer: PreTrainedTokenizerFast, template: str) -> int | None:
    """Render one answer and return the first special token behind it. `template` is there to key the cache."""
    messages = [{"role": "user", "content": _PROBE_PROMPT}, {"role": "assistant", "content": _PROBE_ANSWER}]
    text: str = _apply(tokenizer, messages, add_generation_prompt=False, tokenize=False)
    behind = text.rpartition(_PROBE_ANSWER)[2] if _PROBE_ANSWER in text else ""
    special = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return next((int(index) for index in ids if index in special), None)


def _find_answer_end(tokenizer: PreTrainedTokenizerFast, before: list[int], after: list[int], whole: list[int]) -> int:
    """Return the position behind an answer's end token.

    Args:
        before: rendered up to the answer, with the generation prompt.
        after: rendered up to and including the answer.
        whole: the conversation.
    """
    for shorter in (before, after):
        if whole[: len(shorter)] != shorter:
            raise PrefixViolationError(_describe_violation(tokenizer, shorter, whole))
    end = end_of_turn_id(tokenizer)
    if end is None or end not in after[len(before) :]:
        return len(after)
    return len(after) - after[::-1].index(end)


def _render_batch(
    tokenizer: PreTrainedTokenizerFast, batch: list[list[dict[str, str]]], *, add_generation_prompt: bool
) -> list[list[int]]:
    """Return `render_messages` of each conversation; tokenised together where no text spells a special token."""
    spellings = tuple(token.content for token in tokenizer.added_tokens_decoder.values())
    plain = [not any(token in turn["content"] for turn in turns for token in spellings) for turns in batch]
    together = [turns for turns, is_plain in zip(batch, plain, strict=True) if is_plain]
    encoded = iter(())
    if together:
        texts = _apply(tokenizer, together, add_generation_prompt=add_generation_prompt, tokenize=False)
        encoded = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    return [
        next(encoded) if is_plain else render_messages(tokenizer, turns, add_generation_prompt=add_generation_prompt)
        for turns, is_plain in zip(batch, plain, strict=True)
    ]


def _apply(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Any], **options: Any) -> Any:
    """Call the chat template on the messages of a conversation, or on a list of conversations."""
    if not tokenizer.chat_template:
        raise ModelError("The tokenizer has no chat template. Give it one with attach_default_template.")
    if options["tokenize"]:
        # The user's text may spell a special token: letters then, not a turn that ends.
        options |= {"return_dict": False, "sanitize_control_tokens": True, "tokenizer_kwargs": {"verbose": False}}
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        options["chat_template"] = _FIXED_DATE + template
    try:
        return tokenizer.apply_chat_template(list(messages), **options)
    except Exception as error:  # jinja's own errors: the template is somebody else's program
        if type(error).__module__.partition(".")[0] != "jinja2":
            raise
        raise ModelError(f"The chat template refuses a conversation of user and assistant turns: {error}") from error


def _describe_violation(tokenizer: PreTrainedTokenizerFast, shorter: list[int], whole: list[int]) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(shorter, whole, strict=False)) if a != b), min(len(shorter), len(whole))
    )
    return (
        f"rendered up to the answer, token {at} is {tokenizer.decode(shorter[at : at + 3])!r}; in the whole example it "
        f"is {tokenizer.decode(whole[at : at + 3])!r}. Either the chat template rewrites earlier turns, or the answer "
        "begins with white space that merges with its header: strip it."
    )
