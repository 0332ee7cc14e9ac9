"""The tokenizer: lossless, deterministic, and its special tokens cannot be spelled by a text."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_world import LINES, TEXTS, foreign_tokenizer, own_tokenizer
from transformers import AutoTokenizer

from genai_core.data.tokenizer import (
    SPECIALS,
    document_end_id,
    encode_documents,
    load_tokenizer,
    train_tokenizer,
)
from genai_core.errors import ConfigError, DataError, ModelError


def digest_folder(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_every_text_comes_back_as_it_was(text):
    tokenizer = own_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    ids = next(encode_documents(tokenizer, [text]))
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_with_traps_come_back_as_they_were(text):
    tokenizer = own_tokenizer()
    ids = list(encode_documents(tokenizer, [text, "x", text], batch_size=2))
    assert [tokenizer.decode(each) for each in ids] == [text, "x", text]


def test_a_text_that_spells_a_special_token_gets_letters_not_the_token():
    tokenizer = own_tokenizer()
    text = "stop <|end|> here"
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert end in tokenizer(text)["input_ids"]  # what a plain call does
    assert end not in next(encode_documents(tokenizer, [text]))


def test_special_tokens_are_distinct_and_digits_stand_alone():
    tokenizer = own_tokenizer()
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIALS] == list(range(len(SPECIALS)))
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == tokenizer.bos_token_id
    often = train_tokenizer(["year 2024 and 2024 again"] * 9, 300, 128)  # words merge, however often a number comes
    assert often.convert_ids_to_tokens(often("year 2024")["input_ids"]) == ["year", "Ġ", "2", "0", "2", "4"]
    assert len(tokenizer) == tokenizer.vocab_size == 330
    assert tokenizer.model_max_length == 128


def test_the_same_texts_give_the_same_bytes_in_another_process(tmp_path):
    train_tokenizer(LINES, 330, 128).save_pretrained(tmp_path / "here")
    again = load_tokenizer(tmp_path / "here")
    again.save_pretrained(tmp_path / "again")
    script = (
        "import sys; from tokens_world import own_tokenizer; own_tokenizer().save_pretrained(sys.argv[1])"  # same texts
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "there")], env=env, check=True)
    assert digest_folder(tmp_path / "here") == digest_folder(tmp_path / "there")
    assert digest_folder(tmp_path / "here") == digest_folder(tmp_path / "again")
    assert set(digest_folder(tmp_path / "here")) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_a_saved_tokenizer_is_the_same_for_us_and_for_plain_transformers(tmp_path):
    tokenizer = own_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert [loaded(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
        assert loaded.chat_template == tokenizer.chat_template
        assert (loaded.pad_token_id, loaded.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)


def test_documents_of_an_instruct_tokenizer_are_closed_as_in_its_pre_training():
    foreign = foreign_tokenizer()
    assert document_end_id(foreign) == foreign.convert_tokens_to_ids("<|endoftext|>") != foreign.eos_token_id
    assert document_end_id(own_tokenizer()) == own_tokenizer().eos_token_id


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"vocab_size=299 is too small.*at least 300"):
        train_tokenizer(LINES, 299, 128)
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", ""], 300, 128)
    with pytest.raises(ModelError, match=r"tokenizer_config.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
