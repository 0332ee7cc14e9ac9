"""Facts in two hops over linked documents: who lives where, and what is spoken there.

    p7  : "p7 lives in c3 today . p7 likes c3 very much ."        links to c3
    c3  : "c3 speaks l1 since long ."

Each document is one piece: longer ones are cut anywhere, also within what they say. That p7 speaks l1 stands nowhere: only p7's document and that of its town together say it. The probe shows the form of a
linked pair with the town hidden on both sides, so that only what is known of p7 can answer:

    [CLS] p7 lives in [MASK] today . [SEP] [MASK] speaks [MASK] since long . [SEP]

Every language is spoken in as many towns, and every town has as many people: chance is 1 in LANGUAGES.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from genai_core.data.documents import Document
from genai_core.models.backbone import head_logits, hidden_states

PEOPLE, TOWNS, LANGUAGES = 16, 8, 4
SEQ_LEN = 28
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def world(seed: int = 0) -> tuple[list[Document], list[int]]:
    """Return the documents, and the language of each person."""
    rng = np.random.default_rng(seed)
    town_of = rng.permutation(PEOPLE) % TOWNS
    language_of = rng.permutation(TOWNS) % LANGUAGES
    people = [
        Document(
            f"p{at}",
            f"p{at}",
            f"p{at}",
            f"p{at} lives in c{town} today . p{at} likes c{town} very much .",
            (f"c{town}",),
        )
        for at, town in enumerate(town_of)
    ]
    towns = [
        Document(f"c{at}", f"c{at}", f"c{at}", f"c{at} speaks l{language} since long .")
        for at, language in enumerate(language_of)
    ]
    return [*people, *towns], [int(language_of[town]) for town in town_of]


def world_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the world's words, with BERT's special tokens."""
    documents, _ = world()
    words = sorted({word for one in documents for word in one.text.split()} | {f"l{at}" for at in range(LANGUAGES)})
    inner = Tokenizer(WordLevel({word: at for at, word in enumerate([*SPECIAL, *words])}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **roles)


@torch.no_grad()
def second_hops(model: Any, tokenizer: PreTrainedTokenizerFast, languages: list[int], *, offset: int = 0) -> float:
    """Return the share of people whose language is found among the languages."""
    model.eval()
    prompts = [
        f"[CLS] p{at} lives in [MASK] today . [SEP] [MASK] speaks [MASK] since long . [SEP]" for at in range(PEOPLE)
    ]
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(prompt.split()) for prompt in prompts])
    at = prompts[0].split().index("speaks") + 1 - offset
    first_end = prompts[0].split().index("[SEP]")
    places = torch.arange(ids.shape[1]).expand(len(ids), -1)
    hidden = hidden_states(
        model, ids, places, torch.ones(len(ids), *(ids.shape[1],) * 2, dtype=torch.bool), (places > first_end).long()
    )
    choices = tokenizer.convert_tokens_to_ids([f"l{one}" for one in range(LANGUAGES)])
    found = head_logits(model, hidden[:, at])[:, choices].argmax(-1)
    return float((found == torch.tensor(languages)).float().mean())
