"""Text -> token ids: a byte-level BPE tokenizer trained here, or the one that comes with a base model.

The trained one is GPT-2's scheme (Radford et al. 2019, section 2.2) with each digit its own token, and these specials:

    <|pad|>         fills rows; never an input that counts
    <|endoftext|>   opens and closes a document (bos = eos)
    <|system|> <|user|> <|assistant|>   open a turn
    <|end|>         closes a turn; chat generation stops at it

    <|mask|>        only if asked for: stands for what a masked or diffusion objective hides
    <|fim_prefix|> <|fim_suffix|> <|fim_middle|>   only if asked for: the parts of a rearranged document

All are distinct: a pad that equals the end token, masked by its id, makes a model that never stops (trl issue 976).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from genai_core.errors import ConfigError, DataError, ModelError

PAD, DOCUMENT, SYSTEM, USER, ASSISTANT, END = (
    "<|pad|>",
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
MASK = "<|mask|>"
UL2_MODES = {"nlu": "<|nlu|>", "nlg": "<|nlg|>", "s2s": "<|s2s|>"}
FIM_MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
SPECIALS = (PAD, DOCUMENT, SYSTEM, USER, ASSISTANT, END)
LEAST_VOCABULARY = 300  # 256 bytes, the specials, and a few merges

# Nothing stands between a special token and the content, so no merge can cross the border between prompt and answer.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ '<|system|>' }}"
    "{%- elif message['role'] == 'user' -%}{{ '<|user|>' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ '<|assistant|>' }}"
    "{%- else -%}{{ raise_exception('unknown role: ' + message['role']) }}"
    "{%- endif -%}"
    "{{- message['content'] -}}{{- '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    max_length: int,
    *,
    mask_token: bool = False,
    fim_marks: bool = False,
    sentinels: int = 0,
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with a chat template; the same texts give the same tokenizer.

    Args:
        texts: what to learn merges from, read once.
        vocab_size: entries, specials included; little text may give fewer.
        max_length: tokens of the model's longest input; told by the tokenizer, it cuts nothing.
        mask_token: whether there is one.
        fim_marks: whether there are those of fill-in-the-middle.
        sentinels: how many there are, for UL2; with any, its three mode tokens too.

    Raises:
        ConfigError: vocab_size is below 300.
        DataError: there is no text.
    """
    if vocab_size < LEAST_VOCABULARY + sentinels:
        raise ConfigError(
            f"tokenizer.vocab_size={vocab_size} is too small: 256 bytes and {len(SPECIALS) + sentinels} special tokens leave "
            f"no room for words. Set it to at least {LEAST_VOCABULARY + sentinels}."
        )
    counted, marks = _Counted(texts), FIM_MARKS if fim_marks else ()
    marks = (*marks, *ul2_tokens(sentinels))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        counted,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[*SPECIALS, *([MASK] if mask_token else []), *marks],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    if not counted.characters:
        raise DataError("There is no text to train a tokenizer on: every document was dropped or is empty.")
    trained: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=DOCUMENT,
        eos_token=DOCUMENT,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT, END, *marks],
        **({"mask_token": MASK} if mask_token else {}),
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    trained.chat_template = CHAT_TEMPLATE
    return trained


def ul2_tokens(sentinels: int) -> tuple[str, ...]:
    """Return the spelling of UL2's mode tokens and of so many sentinels; none of either for 0."""
    return (*UL2_MODES.values(), *(f"<|sentinel_{number}|>" for number in range(sentinels))) if sentinels else ()


class _Counted:
    """Texts, and how many characters have gone by."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.characters += len(text)
            yield text


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a folder.

    Raises:
        ModelError: there is none, or none that the tokenizers library can run.
    """
    if not (path / "tokenizer_config.json").is_file():
        raise ModelError(f"No tokenizer in {path}: tokenizer_config.json is missing. Name a folder of save_pretrained.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), trust_remote_code=False
        )  # a folder that is there: no hub is asked
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The tokenizer in {path} cannot be loaded: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            f"The tokenizer in {path} is a {type(tokenizer).__name__} without a tokenizer.json. "
            "Convert it with transformers and save it again."
        )
    for how_it_was_loaded in ("is_local", "local_files_only"):  # written by save_pretrained; HF_HUB_OFFLINE sets one
        tokenizer.init_kwargs.pop(how_it_was_loaded, None)
    return tokenizer


def document_end_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id that closes documents: <|endoftext|> where the vocabulary has it, else eos, else BERT's [SEP].

    Instruct models often have a turn marker as eos (SmolLM2: <|im_end|>), but were pre-trained with <|endoftext|>.

    Raises:
        ModelError: the tokenizer has none of them.
    """
    for index, token in tokenizer.added_tokens_decoder.items():
        if token.content == DOCUMENT:
            return int(index)
    found = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if found is None:
        raise ModelError(
            "The tokenizer has neither an eos nor a sep token, so documents cannot be closed. Set eos_token in its config."
        )
    return int(found)


def document_start_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id that opens documents: an encoder's [CLS], else the one that closes them.

    Raises:
        ModelError: the tokenizer has none of them.
    """
    if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        return int(tokenizer.cls_token_id)
    return document_end_id(tokenizer)


PROBE = "def  f(x1=2024):\n\treturn 'Zürich, 東京'  # isn't 3.14 %\n\n  A-B_c <|end|> \u2009!"
"""Spaces, digits, code, letters beyond ASCII, a special token: what tokenizers with one vocabulary still cut differently."""


def check_same_tokenizer(ours: PreTrainedTokenizerFast, theirs: PreTrainedTokenizerFast | None) -> None:
    """Raise ModelError, which says what differs, unless both turn text into the same ids.

    Padding may differ: it is neither seen nor predicted. So may the chat template.
    """
    differences = ["it has none"] if theirs is None else _differences(ours, theirs)
    if differences:
        raise ModelError(
            f"The teacher's tokenizer is not that of the data: {'; '.join(differences)}. What one model says of a token means "
            "nothing to the other. Use a teacher with the same tokenizer, or data.tokenizer.kind='base' with a base of the "
            "teacher's family."
        )


def _differences(ours: PreTrainedTokenizerFast, theirs: PreTrainedTokenizerFast) -> list[str]:
    found = []
    own, other = ours.get_vocab(), theirs.get_vocab()
    if own != other:
        apart = sorted((token for token in {**own, **other} if own.get(token) != other.get(token)), key=str)
        shown = ", ".join(f"{token!r} {own.get(token)} / {other.get(token)}" for token in apart[:3])
        found.append(f"{len(apart):,} entries differ ({len(own):,} here, {len(other):,} there; such as {shown})")
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "mask_token_id"):
        if getattr(ours, name) != getattr(theirs, name):
            found.append(f"{name} is {getattr(ours, name)} here, {getattr(theirs, name)} there")
    if not found:
        cut, their_cut = (one(PROBE, add_special_tokens=False)["input_ids"] for one in (ours, theirs))
        if cut != their_cut:
            found.append(f"the vocabulary is the same, but a test text of {len(cut)} tokens is {len(their_cut)} there")
    return found


def encode_documents(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], batch_size: int = 256
) -> Iterator[list[int]]:
    """Yield the ids of each text, in order, with no special token among them: a text that spells one gets its letters."""
    source = iter(texts)
    while batch := list(islice(source, batch_size)):
        yield from tokenizer(
            batch,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,  # a document may be longer than the model; packing cuts it
        )["input_ids"]
