"""How many bytes of text each token stands for: what bits per byte are counted in, so that tokenizers compare."""

from __future__ import annotations

from typing import Any

import numpy as np


def count_token_bytes(tokenizer: Any, vocab_size: int) -> np.ndarray:
    """Return the UTF-8 bytes of every token, (vocab_size,) int64; 0 for special tokens and ids without a token.

    A byte-level vocabulary writes each byte as one character, so a token's length is its bytes; a `<0x0A>` of a
    SentencePiece vocabulary is one byte; anything else is as long as its text with a space for the word mark.

    Args:
        tokenizer: a fast tokenizer.
        vocab_size: rows of the model's embeddings.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    special = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    byte_level = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)
    for token, index in tokenizer.get_vocab().items():
        if index in special or index >= vocab_size:
            continue
        if byte_level:
            counts[index] = len(token)
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            counts[index] = 1
        else:
            counts[index] = len(token.replace("▁", " ").encode())
    return counts
