"""Symbol tuning: classification by exemplars whose labels are arbitrary symbols, so that only the exemplars tell the rule.

    Input: the rock is destined to be ...
    Output:
    4821

    Input: simplistic , silly and tedious .
    Output:
    JQK

    Input: effective but too-tepid biopic
    Output:                                    ->  JQK

Wei et al. 2023, arXiv 2305.08298. Of every prompt anew: the layout, the classes (of a dataset with many), the map from classes to
symbols, the exemplars, their order. No instruction, and no symbol that occurs in a text or is a label of any dataset.

For held-out queries the paper's four settings are written, all with the same exemplars in the same order, so that they compare
pair by pair; and its flipped labels, where a dataset has two classes:

    task                  labels         instruction
    symbols               held out       no
    symbols_instructed    held out       yes
    labels                natural        no
    labels_instructed     natural        yes
    flipped               swapped        no

A label stands on a line of its own: so its tokens are the same in an exemplar, after a line break, and as an answer, after the
header of a turn. Texts that are too long are left out and exemplars become fewer until a prompt fits, but no exemplar is ever cut:
a prompt that lost all of a class could not be solved. Exemplars come from the query's own side of the split.

Each pair's `check` holds what an audit needs: dataset, layout, map, exemplars, candidates.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from genai_core.augmentation.sentences import collapse_spaces
from genai_core.augmentation.symbols import Pool, draw_symbols
from genai_core.config.data import SymbolPairs
from genai_core.data.documents import Document, Pair
from genai_core.data.sources.tables import find_field
from genai_core.errors import DataError

LAYOUTS = (
    ("Input: {text}\nOutput:", "\n"),
    ("Question: {text}\nAnswer:", "\n"),
    ("Text: {text}\nLabel:", "\n"),
    ("{text}\n->", "\n"),
    ("Example: {text}\nClass:", "\n"),
)
"""How a text is shown, and what stands between it and its label."""

SETTINGS = ("symbols", "symbols_instructed", "labels", "labels_instructed")
FLIPPED = "flipped"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text of a class."""

    row_id: str
    group: str
    text: str
    label: str


@dataclass(slots=True)
class _Dataset:
    name: str
    classes: dict[str, list[Labelled]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What the settings of one query share."""

    dataset: str
    query: Labelled
    layout: int
    classes: tuple[str, ...]
    exemplars: tuple[Labelled, ...]
    per_class: int


def symbol_pairs(documents: Sequence[Document], config: SymbolPairs, seed: int, *, held_out: bool) -> list[Pair]:
    """Return the prompts of all documents of one side of the split; the same for the same arguments.

    Args:
        documents: of that side: rows with a text and a label, or objects of Python's documentation.
        config: the fields, and the numbers.
        seed: decides what is drawn.
        held_out: whether the side is measured on: then held-out symbols, and every setting.

    Raises:
        DataError: no document gives a prompt; says why.
    """
    datasets = _read(documents, config)
    labels = {label.casefold() for dataset in datasets for label in dataset.classes}
    pairs: list[Pair] = []
    lost = 0
    for dataset in datasets:
        for query in [one for label in sorted(dataset.classes) for one in dataset.classes[label]]:
            for index in range(1 if held_out else config.prompts_per_text):
                rng = random.Random(f"{seed}/{dataset.name}/{query.row_id}/{index}")
                drawn = _draw(dataset, query, config, rng, held_out=held_out)
                if drawn is None:
                    lost += 1
                elif held_out:
                    pairs += _settings(drawn, config, labels, rng, two_classes=len(dataset.classes) == 2)
                else:
                    natural = config.labels == "natural"
                    names = _natural(drawn) if natural else _symbols(drawn, "training", config, labels, rng)
                    pairs.append(_pair("labels" if natural else "symbols", drawn, names, index=index))
    if not pairs and documents:
        raise DataError(
            f"none of the {len(documents):,} rows gives a prompt with exemplars: {_say(datasets)}; {lost:,} texts lack "
            f"{config.min_exemplars} others of two classes, or room for them. Check pairs.label_field and pairs.dataset_field, raise "
            "pairs.text_words and pairs.prompt_words, or hold out more rows."
        )
    return pairs


def _read(documents: Sequence[Document], config: SymbolPairs) -> list[_Dataset]:
    """Return the datasets by name; texts in document order, without those that are too long or have no label."""
    found: dict[str, _Dataset] = {}
    for document in documents:
        for name, text, label in _labelled(document, config):
            if text and label and len(text.split(" ")) <= config.text_words:
                dataset = found.setdefault(name, _Dataset(name))
                dataset.classes[label].append(Labelled(document.doc_id, document.group, text, label))
    return [found[name] for name in sorted(found)]


def _labelled(document: Document, config: SymbolPairs) -> list[tuple[str, str, str]]:
    """Return (dataset, text, label) of a document: one of a row; of a Python object what it is, and which module's."""
    if "fields" not in document.meta:
        summary, kind = (collapse_spaces(str(document.meta.get(name) or "")) for name in ("summary", "kind"))
        return (
            [("kind", summary, kind), ("module", summary, str(document.meta.get("module") or ""))]
            if "object" in document.meta
            else []
        )
    fields = document.meta["fields"]
    text, label = (_text(find_field(fields, name)[0]) for name in (config.text_field, config.label_field))
    name = _text(find_field(fields, config.dataset_field)[0]) if config.dataset_field else ""
    return [(name or document.doc_id.rpartition(":")[0], text, label)]


def _text(value: Any) -> str:
    return collapse_spaces(str(value)) if isinstance(value, (str, int, float)) else ""


def _draw(
    dataset: _Dataset, query: Labelled, config: SymbolPairs, rng: random.Random, *, held_out: bool
) -> _Drawn | None:
    """Return classes, exemplars and layout of a prompt, or None if there are too few texts or too little room."""
    layout = rng.randrange(len(LAYOUTS))
    least = config.min_exemplars
    wanted = config.eval_exemplars if held_out else rng.randint(least, config.max_exemplars)
    others = {label: [one for one in texts if one.text != query.text] for label, texts in dataset.classes.items()}
    usable = sorted(label for label, texts in others.items() if len(texts) >= least)
    if query.label not in usable or len(usable) < 2:
        return None
    rest = [label for label in usable if label != query.label]
    classes = [query.label, *rng.sample(rest, min(len(rest), config.max_classes - 1))]
    rng.shuffle(classes)
    wanted = min([wanted, *(len(others[label]) for label in classes)])
    chosen = {label: rng.sample(others[label], wanted) for label in classes}
    while _words(query, chosen) > config.prompt_words:
        wanted -= 1
        if wanted < least:
            return None
        chosen = {label: texts[:wanted] for label, texts in chosen.items()}
    exemplars = [one for texts in chosen.values() for one in texts]
    rng.shuffle(exemplars)
    return _Drawn(dataset.name, query, layout, tuple(classes), tuple(exemplars), wanted)


def _words(query: Labelled, chosen: dict[str, list[Labelled]]) -> int:
    """Return the words of a prompt; a layout and a label are some three."""
    return sum(len(one.text.split(" ")) + 3 for one in [query, *(one for texts in chosen.values() for one in texts)])


def _settings(
    drawn: _Drawn, config: SymbolPairs, labels: set[str], rng: random.Random, *, two_classes: bool
) -> list[Pair]:
    symbols, natural = _symbols(drawn, "held_out", config, labels, rng), _natural(drawn)
    shown = sorted(drawn.classes)
    instruction = config.instruction.format(labels=f"{', '.join(shown[:-1])} or {shown[-1]}")
    pairs = [
        _pair(setting, drawn, symbols if "symbols" in setting else natural, instruction if "_" in setting else "")
        for setting in SETTINGS
    ]
    if two_classes:
        one, other = drawn.classes
        pairs.append(_pair(FLIPPED, drawn, {one: other, other: one}))
    return pairs


def _symbols(drawn: _Drawn, pool: Pool, config: SymbolPairs, labels: set[str], rng: random.Random) -> dict[str, str]:
    """Return a symbol for each class, none of which occurs in a text of the prompt or is a label of any dataset."""
    texts = " ".join(one.text for one in (drawn.query, *drawn.exemplars)).casefold()
    taken = labels | set(_WORD.findall(texts))
    drawn_symbols = draw_symbols(len(drawn.classes), pool, config.categories, taken, rng)
    return {label: symbol for label, (symbol, _) in zip(drawn.classes, drawn_symbols, strict=True)}


def _natural(drawn: _Drawn) -> dict[str, str]:
    return {label: label for label in drawn.classes}


def _pair(setting: str, drawn: _Drawn, names: dict[str, str], instruction: str = "", index: int = 0) -> Pair:
    shape, between = LAYOUTS[drawn.layout]
    shown = [f"{shape.format(text=one.text)}{between}{names[one.label]}" for one in drawn.exemplars]
    parts = [instruction] if instruction else []
    gold = names[drawn.query.label]
    return Pair(
        pair_id=f"{setting}:{drawn.dataset}:{drawn.query.row_id}:{index}",
        task=setting,
        group=drawn.query.group,
        doc_id=drawn.query.row_id,
        prompt="\n\n".join([*parts, *shown, shape.format(text=drawn.query.text)]),
        completion=gold,
        check={
            "kind": "match",
            "gold": gold,
            "candidates": [names[label] for label in drawn.classes],
            "dataset": drawn.dataset,
            "layout": drawn.layout,
            "map": names,
            "label": drawn.query.label,
            "per_class": drawn.per_class,
            "exemplars": [one.row_id for one in drawn.exemplars],
        },
    )


def _say(datasets: Sequence[_Dataset]) -> str:
    named = [f"{one.name!r} with {len(one.classes)} classes" for one in datasets[:5]]
    return f"{len(datasets)} datasets ({', '.join(named)})" if named else "no row has a text and a label"
