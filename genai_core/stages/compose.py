"""Compose: a model writes texts from training documents, and what they are worth is measured beside the documents' own.

texts.jsonl   source_id, label, prompt (what was given), text, source (the document, as long), written (character ranges)
cases.jsonl   one row a text and side (composed, source): what the figures with intervals are computed from
report.json   figures of both sides, intervals, downstream scores

Both sides are judged alike: of `continue` what follows the given beginning, of `refill` the whole text (as copied only what
has a written word in it). The third model, the corpus's 5-gram, is counted without the documents that texts are composed
from, so what the source scores is what unread real text scores. Distinct-n and self-BLEU are taken over as many words on
every side; two reports compare where `diversity/words` is the same.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.config.comparison import ComposingConfig, Continue
from genai_core.config.generation import SamplingConfig
from genai_core.config.stages import ComposeStage
from genai_core.data.documents import Document, read_documents_file
from genai_core.data.masking import begin_words
from genai_core.data.ngrams import Predicted, kneser_ney
from genai_core.data.packing import PackedRow, pack_documents
from genai_core.data.token_bytes import count_token_bytes
from genai_core.data.tokenizer import document_start_id, encode_documents, load_tokenizer
from genai_core.errors import ConfigError, DataError, ModelError
from genai_core.evaluation.benchmarks.composed import (
    Tfidf,
    bleu,
    classify,
    coherence,
    copies,
    macro_f1,
    rouge_l,
)
from genai_core.evaluation.compare import (
    percentile_interval,
    resampled_sums,
    wilson_interval,
    write_json,
    write_jsonl,
)
from genai_core.evaluation.labelled_texts import label_of
from genai_core.evaluation.runner import choose
from genai_core.generation.composing import compose_shard
from genai_core.generation.prompts import longest_row
from genai_core.models.families import family_of
from genai_core.recursion.metrics import TOKEN, cut_to_budget, distinct_n, self_bleu, words
from genai_core.stages.contract import StageContext, StageResult

SHARD_ROWS = 32
"""Texts of a shard: part of the result, because logits are rounded by their batch."""

ORDER = 5
ROW_TOKENS = 512
"""Tokens that a row of counted text has; it decides nothing but where a history begins anew."""

RATIOS = {
    "quality/rouge_l": ("rouge_l", "texts", 1.0),
    "quality/bits_per_byte": ("nats", "bytes", 1 / math.log(2)),
    "quality/right_tokens": ("right", "written", 1.0),
    "quality/length": ("written", "wanted", 1.0),
    "coherence/lexical": ("coherence", "texts", 1.0),
    "copy/rate": ("copied", "grams", 1.0),
    "copy/elsewhere": ("elsewhere", "grams", 1.0),
    "copy/longest_mean": ("longest", "texts", 1.0),
}
"""Figures that are ratios of sums over the texts: numerator, denominator, scale."""


@dataclass(frozen=True)
class Text:
    """A text on one side, composed or source."""

    source_id: str
    ids: list[int]
    """Without the document's mark."""

    written: list[bool]
    """Which of its tokens a model wrote; of a source, which it would have."""

    text: str
    spans: list[tuple[int, int]]
    """Character ranges that were written."""

    whole: bool
    """Whether all of it is judged (refill), or only what follows the beginning that was given."""

    @property
    def start(self) -> int:
        """Return the character at which what is judged begins."""
        return 0 if self.whole else self.spans[0][0] if self.spans else len(self.text)

    def words(self) -> list[str]:
        """Return the words that are judged."""
        return words(self.text[self.start :])

    def flags(self) -> list[bool]:
        """Return, for each of them, whether some of it was written."""
        return [
            any(first < match.end() and match.start() < last for first, last in self.spans)
            for match in TOKEN.finditer(self.text, self.start)
        ]

    def given(self) -> str:
        """Return the text without what was written."""
        edges = [0, *(edge for span in self.spans for edge in span), len(self.text)]
        return "".join(self.text[edges[at] : edges[at + 1]] for at in range(0, len(edges), 2))

    def halves(self) -> tuple[str, str]:
        """Return what coherence is measured between: what was given and what follows, or the two halves of its words."""
        cut = self.start
        if self.whole:
            begins = [match.start() for match in TOKEN.finditer(self.text)]
            cut = begins[len(begins) // 2] if begins else 0
        return self.text[:cut], self.text[cut:]


def compose(config: ComposeStage, context: StageContext) -> StageResult:
    """Write a text from each chosen training document of `corpus` with `model`, and measure texts and documents alike.

    Raises:
        ModelError: the model cannot read as the config says.
        ConfigError: the texts are longer than the model.
        DataError: no training document is long enough.
    """
    how, folder, corpus = config.composing, context.inputs["model"], context.inputs["corpus"]
    _check_model(config, folder)
    tokenizer = load_tokenizer(folder)
    train = read_documents_file(corpus / "documents" / "train.parquet")
    encoded = dict(zip((d.doc_id for d in train), encode_documents(tokenizer, (d.text for d in train)), strict=True))
    chosen = _choose(train, encoded, how)
    whole = not isinstance(config.way, Continue)
    rows: list[dict[str, Any]] = [
        {"row_id": d.doc_id, "ids": encoded[d.doc_id][: how.tokens], "given": 0} for d in chosen
    ]
    if isinstance(config.way, Continue):
        begins: np.ndarray = np.array(begin_words([*tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]))
        rows = [{**row, "given": _given(begins[row["ids"]], config.way.given)} for row in rows]
    found = _map(config, context, rows)
    context.check()
    composed = [_text(tokenizer, row["row_id"], row["ids"], [*map(bool, row["written"])], whole) for row in found]
    sources = [
        _text(tokenizer, row["row_id"], row["ids"], _as_source(row, made, whole), whole)
        for row, made in zip(rows, found, strict=True)
    ]
    sides = {"composed": composed, "source": sources}
    cases = _cases(sides, train, encoded, tokenizer, how)
    context.check()
    labels = {d.doc_id: label_of(d, how.label_field) if how.label_field else "" for d in chosen}
    report = {
        "model": context.refs["model"].label(),
        "reads": config.reads,
        "way": config.way.model_dump(mode="json"),
        "texts": len(composed),
        "figures": {side: _figures(side, sides, cases[side], how) for side in sides},
        "intervals": {side: _intervals(cases[side], how) for side in sides},
        "downstream": _downstream(sides, labels, corpus, tokenizer, how),
    }
    if not report["downstream"]:
        context.journal.event(
            f"no downstream score: the corpus has not two labels in {how.label_field!r} on both sides"
        )
    write_json(context.output / "report.json", report)
    write_jsonl(context.output / "cases.jsonl", [{"side": side, **case} for side in sides for case in cases[side]])
    write_jsonl(
        context.output / "texts.jsonl",
        [
            {
                "source_id": one.source_id,
                "label": labels[one.source_id],
                "prompt": one.given(),
                "text": one.text,
                "source": source.text,
                "written": [list(span) for span in one.spans],
            }
            for one, source in zip(composed, sources, strict=True)
        ],
    )
    return StageResult(metrics=_flat(report))


def _check_model(config: ComposeStage, folder: Path) -> None:
    from transformers import AutoConfig

    family = family_of(folder)
    if family == "encoder" or (family == "masked" and config.reads == "left"):
        raise ModelError(
            f"The model is an encoder{'' if family == 'masked' else ' without a head'} and cannot write with "
            f"reads={config.reads!r}. Give a decoder, or an encoder with its masked head and reads='own'."
        )
    longest = longest_row(AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False))
    if longest is not None and config.composing.tokens >= longest:
        raise ConfigError(
            f"composing.tokens={config.composing.tokens} and a document's mark are longer than the model, which holds "
            f"{longest}. Lower it."
        )


def _choose(train: Sequence[Document], encoded: Mapping[str, list[int]], how: ComposingConfig) -> list[Document]:
    """Return the documents that texts are composed from: at most half of all, so that a 5-gram can be counted on others."""
    fitting = [document for document in train if len(encoded[document.doc_id]) >= how.min_tokens]
    chosen = choose(fitting, lambda document: document.doc_id, min(how.documents, len(train) // 2), how.seed)
    if not chosen:
        raise DataError(
            f"Of {len(train)} training documents, none of two has composing.min_tokens={how.min_tokens} tokens. Lower it."
        )
    return chosen


def _given(begins: np.ndarray, share: float) -> int:
    """Return how many tokens are given: the share, or fewer, so that the next one begins a word.

    Args:
        begins: (T,) bool, whether a token begins a word.
        share: of the tokens; at least one is given and one is left.
    """
    wanted = min(len(begins) - 1, max(1, round(share * len(begins))))
    return next((at for at in range(wanted, 0, -1) if begins[at]), wanted)


def _map(config: ComposeStage, context: StageContext, rows: list[dict[str, Any]]) -> list[Any]:
    compute, how = context.job.compute, config.composing
    workers = compute.generation_workers or compute.workers or 1
    return context.workers.map_shards(
        compose_shard,
        {
            "model": str(context.inputs["model"]),
            "reads": config.reads,
            "mask_token": config.mask_token,
            "way": config.way.model_dump(mode="json"),
            "sampling": SamplingConfig(temperature=how.temperature, top_p=how.top_p, seed=how.seed).model_dump(
                mode="json"
            ),
        },
        rows,
        name="texts",
        shard_rows=SHARD_ROWS,
        workers=workers,
        threads=compute.threads or max(1, len(os.sched_getaffinity(0)) // workers),
    )


def _as_source(row: Mapping[str, Any], made: Mapping[str, Any], whole: bool) -> list[bool]:
    """Return which tokens of a document a model has written anew, or would have, had it not ended early."""
    return [*map(bool, made["written"])] if whole else [at >= row["given"] for at in range(len(row["ids"]))]


def _text(tokenizer: Any, source_id: str, ids: list[int], written: list[bool], whole: bool) -> Text:
    """Return a text with the character ranges of its written tokens."""
    edges = [at for at in range(1, len(ids)) if written[at] != written[at - 1]]
    text = _decode(tokenizer, ids)
    # beginnings decoded, not pieces: a character of several bytes may lie on the edge, and is of what comes after it
    cuts = [0, *(_agree(_decode(tokenizer, ids[:edge]), text) for edge in edges)]
    firsts = [0, *edges] if ids else []
    spans = [
        (first, last)
        for (first, last), token in zip(pairwise([*cuts, len(text)]), firsts, strict=False)
        if written[token] and first < last
    ]
    return Text(source_id, ids, written, text, spans, whole)


def _agree(beginning: str, text: str) -> int:
    """Return how many characters of a text are those of a beginning."""
    return next(
        (at for at, (a, b) in enumerate(zip(beginning, text, strict=False)) if a != b), min(len(beginning), len(text))
    )


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    return text


def _cases(
    sides: Mapping[str, Sequence[Text]],
    train: Sequence[Document],
    encoded: Mapping[str, list[int]],
    tokenizer: Any,
    how: ComposingConfig,
) -> dict[str, list[dict[str, Any]]]:
    """Return what is measured of each text, by side."""
    sources = sides["source"]
    own = {text.source_id for text in sources}
    others = [ids for name, ids in encoded.items() if name not in own]
    nats = _nats(sides, others, tokenizer)
    sizes = count_token_bytes(tokenizer, len(tokenizer))
    ruler = Tfidf([document.text for document in train])
    both = [text for side in sides.values() for text in side]
    copied = copies(
        [text.words() for text in both],
        [text.flags() for text in both],
        [text.source_id for text in both],
        ((document.doc_id, words(document.text)) for document in train),
        how.copy_words,
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (side, texts) in enumerate(sides.items()):
        beginnings, rests = zip(*(text.halves() for text in texts), strict=True)
        coherent = coherence(ruler.cosines(beginnings, rests))
        found[side] = [
            {
                "source_id": text.source_id,
                "texts": 1,
                "rouge_l": rouge_l(text.words(), source.words()),
                "nats": nats[side][at],
                "bytes": int(sizes[text.ids][_scored(text)].sum()),
                "right": sum(a == b and w for a, b, w in zip(text.ids, source.ids, text.written, strict=False)),
                "written": sum(text.written),
                "wanted": sum(source.written),
                "coherence": float(coherent[at]),
                "grams": copied[number * len(sources) + at].grams,
                "copied": copied[number * len(sources) + at].copied,
                "elsewhere": copied[number * len(sources) + at].elsewhere,
                "longest": copied[number * len(sources) + at].longest,
            }
            for at, (text, source) in enumerate(zip(texts, sources, strict=True))
        ]
    return found


def _scored(text: Text) -> np.ndarray:
    """Return which tokens the third model is asked of, (T,) bool."""
    return np.ones(len(text.ids), dtype=bool) if text.whole else np.array(text.written, dtype=bool)


def _nats(sides: Mapping[str, Sequence[Text]], others: Sequence[list[int]], tokenizer: Any) -> dict[str, list[float]]:
    """Return -log p of each text's judged tokens under the 5-gram of other training documents."""
    vocab, mark = len(tokenizer), document_start_id(tokenizer)
    known = Predicted.of(pack_documents(others, ROW_TOKENS, mark), ORDER - 1, vocab)
    texts = [text for side in sides.values() for text in side]
    rows = [
        PackedRow(
            np.array([mark, *text.ids], dtype=np.int32),
            np.array([1 + len(text.ids)], dtype=np.int32),
            np.concatenate([[False], _scored(text)]).astype(np.int8),
        )
        for text in texts
    ]
    asked = Predicted.of(rows, ORDER - 1, vocab)
    losses = -np.log(kneser_ney(known, asked, [ORDER], vocab)[ORDER])
    ends = np.cumsum([int(_scored(text).sum()) for text in texts])
    sums = [float(part.sum()) for part in np.split(losses, ends[:-1])]
    size = len(sides["source"])
    return {side: sums[at * size : (at + 1) * size] for at, side in enumerate(sides)}


def _figures(
    side: str, sides: Mapping[str, Sequence[Text]], cases: Sequence[Mapping[str, Any]], how: ComposingConfig
) -> dict[str, float]:
    """Return the figures of one side; what a source would be told of itself is left out."""
    judged = {name: [text.words() for text in texts] for name, texts in sides.items()}
    budget = min(how.budget_words, *(sum(map(len, texts)) for texts in judged.values()))
    cut = cut_to_budget(judged[side], budget)
    found = {
        "quality/bleu": bleu(judged[side], judged["source"]),
        **{f"diversity/distinct_{n}": distinct_n(cut, n) for n in (1, 2, 3)},
        "diversity/self_bleu": self_bleu(cut),
        "diversity/words": float(budget),
        "copy/longest": float(max(case["longest"] for case in cases)),
    }
    for name, (numerator, denominator, scale) in RATIOS.items():
        total = sum(case[denominator] for case in cases)
        if total:
            found[name] = scale * sum(case[numerator] for case in cases) / total
    if side == "source":
        for name in ("quality/bleu", "quality/rouge_l", "quality/right_tokens", "quality/length"):
            found.pop(name, None)
    return found


def _intervals(cases: Sequence[Mapping[str, Any]], how: ComposingConfig) -> dict[str, dict[str, float]]:
    """Return the 95 % intervals of the ratios, texts resampled."""
    names = sorted({name for numerator, denominator, _ in RATIOS.values() for name in (numerator, denominator)})
    values = np.array([[float(case[name]) for name in names] for case in cases])
    sums = resampled_sums(values, how.bootstrap_draws, how.seed)
    found = {}
    for figure, (numerator, denominator, scale) in RATIOS.items():
        a, b = names.index(numerator), names.index(denominator)
        if (sums[:, b] > 0).all():
            estimate = scale * values[:, a].sum() / values[:, b].sum()
            found[figure] = percentile_interval(estimate, scale * sums[:, a] / sums[:, b], len(cases)).to_json()
    return found


def _downstream(
    sides: Mapping[str, Sequence[Text]],
    labels: Mapping[str, str],
    corpus: Path,
    tokenizer: Any,
    how: ComposingConfig,
) -> dict[str, Any]:
    """Return how well a label is told on real held-out texts, learned from real ones, composed ones, both, and what was given.

    Nothing where the field has not two labels on both sides. All texts are cut to the same number of tokens.
    """
    rows = [(one, real) for one, real in zip(*(sides[side] for side in ("composed", "source")), strict=True)]
    rows = [(one, real) for one, real in rows if labels[one.source_id]]
    known = {labels[one.source_id] for one, _ in rows}
    heldout = [
        (document, label)
        for document in read_documents_file(corpus / "documents" / "heldout.parquet")
        if how.label_field and (label := label_of(document, how.label_field)) in known
    ]
    if len({label for _, label in heldout}) < 2:
        return {}
    gold = [label for _, label in heldout]
    asked = [
        _decode(tokenizer, ids[: how.tokens])
        for ids in encode_documents(tokenizer, (document.text for document, _ in heldout))
    ]
    own = [labels[one.source_id] for one, _ in rows]
    learned = {
        "real": ([real.text for _, real in rows], own),
        "composed": ([one.text for one, _ in rows], own),
        "both": ([text.text for row in rows for text in row], [label for label in own for _ in (0, 1)]),
        "given": ([one.given() for one, _ in rows], own),
    }
    found: dict[str, Any] = {"label_field": how.label_field, "labels": dict(sorted(Counter(own).items()))}
    found["majority"] = gold.count(max(known, key=lambda label: (own.count(label), label))) / len(gold)
    for name, (texts, told) in learned.items():
        predicted = classify(texts, told, asked)
        right = sum(a == b for a, b in zip(predicted, gold, strict=True))
        found[name] = {
            "accuracy": wilson_interval(right, len(gold)).to_json(),
            "macro_f1": macro_f1(predicted, gold),
        }
    return found


def _flat(report: Mapping[str, Any]) -> dict[str, float]:
    figures = {f"{side}/{name}": value for side, found in report["figures"].items() for name, value in found.items()}
    for name, found in report["downstream"].items():
        if isinstance(found, dict) and "accuracy" in found:
            figures[f"downstream/{name}/accuracy"] = found["accuracy"]["mean"]
            figures[f"downstream/{name}/macro_f1"] = found["macro_f1"]
    return {"texts": float(report["texts"]), **figures}
