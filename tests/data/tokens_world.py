"""Small tokenizers with the chat templates of the field, and text with every trap in it."""

from __future__ import annotations

from functools import lru_cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from genai_core.data.tokenizer import train_tokenizer

LINES = [
    f"Return the {adjective} {noun} of `{module}.{noun}({argument}, *, key=None)` as a {adjective} copy.\n    >>> {module}.{noun}({number})"
    for number, (adjective, noun, module, argument) in enumerate(
        (a, n, m, g)
        for a in ("longest", "first", "sorted", "empty")
        for n in ("list", "path", "value")
        for m in ("os", "heapq", "textwrap")
        for g in ("text", "width=70")
    )
]

# SmolLM2's: ChatML with a default system turn; the line break behind the end token is not an answer's.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The same with the markers that only some templates have.
CHATML_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Llama 2's way: no header before the answer, eos behind it.
BRACKETS = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# Rewrites earlier turns: the last user turn is marked, so no rendering is a prefix of the next.
REWRITING = (
    "{% for message in messages %}{% if loop.last %}{{ 'last ' }}{% endif %}"
    "{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
NO_ANSWER = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
NO_PROMPT = "{% for m in messages %}{% if m['role'] != 'user' %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
NO_END = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEXTS = [
    "plain words",
    "def f(x):\n\tif x:\n\t        return 'a'  # two  spaces \r\n\n\n",
    "naïve café 你好 🎉👩‍👩‍👧 \u200b\u0301 \x00 ﷽",
    " leading and trailing ",
    "1234567890 3.14159 0x1F",
    "<|end|> spells <|im_end|> special <|endoftext|> tokens <|pad|>",
    "\n",
    "a",
]


@lru_cache
def own_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of ours. It is shared: do not change it."""
    return train_tokenizer(LINES, vocab_size=330, max_length=128)


def foreign_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Return a new tokenizer as SmolLM2's is: bos, eos and pad are turn markers, pad equals eos."""
    tokenizer = Tokenizer.from_str(_foreign_backend())
    foreign = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        extra_special_tokens=["<|endoftext|>"],
    )
    foreign.chat_template = chat_template
    return foreign


@lru_cache
def _foreign_backend() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Two line breaks before an indentation become one token: the merge across the border of header and answer.
    tokenizer.train_from_iterator([*LINES, "a\n\n    b\n\n    c " * 200], trainer)
    return tokenizer.to_str()
