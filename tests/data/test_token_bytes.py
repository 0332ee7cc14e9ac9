"""The bytes of a text are the bytes of its tokens."""

from __future__ import annotations

from tokens_world import own_tokenizer

from genai_core.data.token_bytes import count_token_bytes


def test_token_bytes_add_up_to_the_text():
    tokenizer = own_tokenizer()
    counts = count_token_bytes(tokenizer, len(tokenizer) + 5)
    assert counts.shape == (len(tokenizer) + 5,)
    for text in ("naïve ärger: some words", "漢字 and 🙂\n\ttabs"):
        assert int(counts[tokenizer(text)["input_ids"]].sum()) == len(text.encode())
    assert int(counts[tokenizer.eos_token_id]) == 0
