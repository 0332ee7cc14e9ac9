"""Which document links to which, piece by piece: the graph that LinkBERT draws its pairs from.

Links are the documents' own (hyperlinks, cross-references, titles named in a text: data/links), or, for text that has none,
each document's nearest neighbours by TF-IDF:

    idf(w) = ln((1 + n) / (1 + df(w))) + 1        v_d(w) = tf_d(w) idf(w) / |.|        similarity(d, e) = <v_d, v_e>

Yasunaga et al. 2022, arXiv 2203.15827, section 4.1 (hyperlinks; the five nearest by TF-IDF otherwise; random links are worth
nothing, similar ones less than real ones: the model learns word overlap from them). The formula is scikit-learn's default.

A link belongs to the piece of the text that names its target: a piece that does not is not about it. Where no piece does (an
anchor in other words), all pieces of the document carry it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from genai_core.config.objectives import LinkedLm
from genai_core.data.documents import Document
from genai_core.data.linked_rows import Segment, cut_randomly

WORD = re.compile(r"(?u)\b\w\w+\b")
BLOCK = 1024


def segments_of(documents: Sequence[Document], tokenizer: Any, longest: int, objective: LinkedLm) -> list[Segment]:
    """Return the documents' segments with what each links to.

    Args:
        documents: of one side of the split, so that no link leads to text that is held out.
        tokenizer: a fast one, which tells where in the text a token stands.
        longest: tokens of a segment.
        objective: says which links.
    """
    numbers = {document.doc_id: number for number, document in enumerate(documents)}
    if objective.links == "similar":
        targets = [tuple(row) for row in similar_documents([one.text for one in documents], objective.neighbours)]
    else:
        targets = [tuple(numbers[link] for link in one.links if link in numbers) for one in documents]
    found: list[Segment] = []
    for number, (ids, offsets) in enumerate(_encode(tokenizer, [document.text for document in documents])):
        parts = cut_randomly(len(ids), longest, documents[number].doc_id)
        text = documents[number].text
        texts = [text[offsets[part.start][0] : offsets[part.stop - 1][1]] for part in parts]
        if objective.links == "similar":
            here = [targets[number]] * len(parts)
        else:
            here = place_links(texts, targets[number], [documents[target].title for target in targets[number]])
        found += [Segment(number, at, tuple(ids[part]), here[at]) for at, part in enumerate(parts)]
    return found


def place_links(texts: Sequence[str], targets: Sequence[int], titles: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the targets that each piece of a text names, or all pieces if none does.

    Args:
        texts: the pieces.
        targets: documents that the whole links to.
        titles: theirs; of a dotted name the last part will do (`fill` for textwrap.fill).
    """
    found: list[list[int]] = [[] for _ in texts]
    for target, title in zip(targets, titles, strict=True):
        names = [one for one in (title, title.rpartition(".")[2]) if one]
        naming = [at for at, text in enumerate(texts) if any(name in text for name in names)]
        for at in naming or range(len(texts)):
            found[at].append(target)
    return [tuple(one) for one in found]


def similar_documents(texts: Sequence[str], neighbours: int) -> list[list[int]]:
    """Return the nearest documents of each by TF-IDF cosine, nearest first, ties by number; only with a word in common."""
    from scipy import sparse

    words: dict[str, int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        for word in WORD.findall(text.lower()):
            rows.append(row)
            columns.append(words.setdefault(word, len(words)))
    shape = (len(texts), max(1, len(words)))
    counts = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)  # doubles are added up
    seen_in = np.asarray((counts > 0).sum(axis=0)).ravel()
    weighted = counts @ sparse.diags(np.log((1 + len(texts)) / (1 + seen_in)) + 1)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    vectors = (sparse.diags(1 / np.maximum(norms, 1e-12)) @ weighted).tocsr()
    found: list[list[int]] = []
    for start in range(0, len(texts), BLOCK):
        block = (vectors[start : start + BLOCK] @ vectors.T).toarray()
        for at, likeness in enumerate(block):
            likeness[start + at] = 0.0
            order = np.argsort(-likeness, kind="stable")[:neighbours]
            found.append([int(one) for one in order if likeness[one] > 0])
    return found


def _encode(
    tokenizer: Any, texts: Iterable[str], batch_size: int = 256
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Yield the ids of each text and where in it each token stands."""
    source = iter(texts)
    while batch := list(islice(source, batch_size)):
        encoded = tokenizer(
            batch,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        yield from zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
