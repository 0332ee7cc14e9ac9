"""A tokenizer as llama.cpp has it: what a GGUF file says of one, and how llama.cpp cuts text by what it says.

A GGUF file holds tokens, merges and the *name* of a pre-tokenizer, whose rules are compiled into llama.cpp
(src/llama-vocab.cpp, `regex_exprs`). A name is right only where those rules are the tokenizer's own:

    smollm   each number its own piece, then GPT-2's words      [Digits(individual_digits), ByteLevel]: ours, SmolLM's
    gpt-2    GPT-2's words                                      ByteLevel

A tokenizer of any other kind is refused: under a wrong name llama.cpp would feed the model other tokens than it was
trained on, and nothing would say so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from genai_core.errors import ModelError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_RULES: dict[str, tuple[dict[str, Any], ...]] = {"smollm": (_DIGITS, _GPT2), "gpt-2": (_GPT2,)}


def pre_tokenizer_name(tokenizer: Any) -> str:
    """Return llama.cpp's name of a tokenizer's rules.

    Raises:
        ModelError: llama.cpp has no name for them, or not among those that are checked here.
    """
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = told["model"]["type"]
    if kind != "BPE" or told["model"].get("byte_fallback"):
        raise ModelError(f"The tokenizer is a {kind} model; only byte-level BPE is written. Use --to hf.")
    if told["model"].get("ignore_merges") or told["normalizer"]:
        raise ModelError("The tokenizer normalizes text or ignores its merges; that is not written. Use --to hf.")
    rules = told["pre_tokenizer"] or {}
    steps = rules.get("pretokenizers", [rules])
    for name, wanted in _RULES.items():
        if len(steps) == len(wanted) and all(_means(step, rule) for step, rule in zip(steps, wanted, strict=True)):
            return name
    said = " + ".join(str(step.get("type", "nothing")) for step in steps)
    raise ModelError(
        f"llama.cpp would cut text otherwise than this tokenizer ({said}) does; rules with a name in llama.cpp that are "
        "written: digits one by one + byte level (smollm), byte level alone (gpt-2). Use --to hf."
    )


def tokenizer_fields(tokenizer: Any, rows: int) -> dict[str, Any]:
    """Return the file's fields under `tokenizer.ggml.`: tokens, token_type, merges, pre, special ids, what is added.

    Args:
        tokenizer: byte-level BPE.
        rows: of the model's embedding; entries beyond the vocabulary are named [PAD...] and marked unused.

    Raises:
        ModelError: see `pre_tokenizer_name`; or the vocabulary has holes or more entries than rows.
    """
    from genai_core.data.templates import end_of_turn_id

    pre = pre_tokenizer_name(tokenizer)
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    if max(names) >= rows:
        raise ModelError(f"The tokenizer has {max(names) + 1:,} entries, but the model only {rows:,} embeddings.")
    added = tokenizer.added_tokens_decoder
    kinds = [
        (CONTROL if added[index].special else USER_DEFINED) if index in added else NORMAL if index in names else UNUSED
        for index in range(rows)
    ]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    fields = {
        "model": "gpt2",  # llama.cpp's word for byte-level BPE
        "pre": pre,
        "tokens": [names.get(index, f"[PAD{index}]") for index in range(rows)],
        "token_type": kinds,
        "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "eot_token_id": end_of_turn_id(tokenizer) if tokenizer.chat_template else None,
        "unknown_token_id": tokenizer.unk_token_id,
        "padding_token_id": tokenizer.pad_token_id,
        "add_bos_token": whole[0] != plain[0],
        "add_eos_token": whole[-1] != plain[-1],
    }
    return {name: value for name, value in fields.items() if value is not None}


def read_as_llama_cpp(file: Path) -> Tokenizer:
    """Return the tokenizer that a GGUF file describes, by llama.cpp's rules for the name it gives.

    It encodes plain text; llama.cpp's own binary is asked for the same in tests/models/test_llama_cpp.py.
    """
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    value = {name: fields[f"tokenizer.ggml.{name}"].contents() for name in ("pre", "tokens", "token_type", "merges")}
    pairs = [tuple(merge.split(" ")) for merge in value["merges"]]
    vocabulary = {token: index for index, token in enumerate(value["tokens"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    match value["pre"]:
        case "smollm":
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), words]  # as in llama.cpp, not our Digits
            )
        case "gpt-2":
            tokenizer.pre_tokenizer = words
        case other:
            raise ModelError(f"{file.name} names the pre-tokenizer {other!r}, whose rules are not known here.")
    tokenizer.decoder = decoders.ByteLevel()
    kinds = list(zip(value["tokens"], value["token_type"], strict=True))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token, kind in kinds if kind == CONTROL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in kinds if kind == USER_DEFINED])
    return tokenizer


def differing(texts: Sequence[str], ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> list[str]:
    """Return the texts that get other ids."""
    return [text for text, a, b in zip(texts, ours, theirs, strict=True) if list(a) != list(b)]


def _means(step: dict[str, Any], rule: dict[str, Any]) -> bool:
    return all(step.get(name) == value for name, value in rule.items())
