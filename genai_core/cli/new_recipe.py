"""`genai recipe new`: look at the data, decide, write a recipe that says why beside every decision."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from genai_core.augmentation.outlook import Outlook, survey
from genai_core.cli.recipes import human_bytes, warn
from genai_core.config.data import TextSource
from genai_core.config.load import validate
from genai_core.config.recipe import Recipe
from genai_core.data.documents import Document
from genai_core.data.field_roles import Roles, find_roles
from genai_core.data.formats import Found, find_format, with_fields
from genai_core.data.sources.registry import read_documents
from genai_core.data.sources.text import USUAL_WORD_CHARS
from genai_core.errors import ConfigError, DataError
from genai_core.stages.sizing import STEP_TOKENS, Sizes, size
from tasks.figures import clock

USUAL_ROW, LONG_ROW = 256, 512
FITTING = 0.8
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25)
SAFE_CASES = 1.3  # times the gate's least: near duplicates and leaks take some away
WORDS_A_QUOTE = 150
MOST_QUOTES = 10
WANTED_PAIRS = 6000
PROMPT_WORDS = 100
LONG_WORDS = 1000
PASSAGES = 300  # enough for a split; but no passage so short that a quote has no room
LEAST_PASSAGE_WORDS, MOST_PASSAGE_WORDS = 80, 400


def write_recipe(place: str, target: Path | None, name: str, minutes: float, force: bool) -> None:
    """Write a recipe for the data at `place`, and print what was decided and why.

    Raises:
        ConfigError: the file is there already.
        DataError: the data cannot be read, or is too little to learn anything from.
    """
    name = name or _name_of(place)
    target = target or Path(f"{name}.yaml")
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already. Name another file, or give --force to write over it.")
    if not target.parent.is_dir():
        raise ConfigError(f"There is no folder {str(target.parent)!r} to write {target.name} into. Make it first.")
    console = Console(highlight=False)
    found = find_format(place)
    found, roles = _with_roles(found)
    documents = read_documents(found.source, None, 0.01).documents
    if roles is not None and not roles.prompt and not roles.messages and _mean_words(documents) > LONG_WORDS:
        source = with_fields(found.source, passage_words=_passage_words(documents))
        found = Found(source, (*found.reasons, "the texts are long: each passage is a document, one row on one side"))
        documents = read_documents(source, None, 0.01).documents
    elif isinstance(found.source, TextSource) and found.source.document == "passage":
        source = with_fields(found.source, passage_words=_passage_words(documents))
        found = Found(source, found.reasons)
        documents = read_documents(source, None, 0.01).documents
    values, outlook, notes = _decide(found, roles, documents, name)
    sizes = size(values, outlook, minutes)
    text = _render(values, outlook, sizes, notes, minutes)
    recipe = validate(_parse(text), str(target))
    target.write_text(text, encoding="utf-8")
    for note in (*notes.values(), *_say_sizes(sizes)):
        console.print(Padding(Text(note), (0, 0, 0, 2)))
    warn(console, outlook, recipe)
    console.print(Text.assemble(("\nwritten  ", "dim"), (str(target), "bold")))
    console.print(Text(f"next:    genai recipe check {target}\n         genai run {target}", style="dim"))


def _with_roles(found: Found) -> tuple[Found, Roles | None]:
    """Return the source with its text field set, and what its fields are good for."""
    if not hasattr(found.source, "text_field"):
        return found, None
    rows = read_documents(with_fields(found.source, text_field=()), None, 0.01).documents
    fields = [row.meta["fields"] for row in rows]
    if not fields:
        raise DataError(f"{found.source.path!r} holds no rows. Give a file with content.")
    roles = find_roles(fields)
    if roles is None:
        names = ", ".join(map(repr, fields[0])) or "none"
        raise DataError(
            f"{found.source.path!r}: no field holds text (there are: {names}). Give rows with text in them."
        )
    source = with_fields(found.source, text_field=roles.text, group_field=roles.group)
    return Found(source, found.reasons), roles


def _decide(
    found: Found, roles: Roles | None, documents: Sequence[Document], name: str
) -> tuple[dict[str, Any], Outlook, dict[str, str]]:
    """Return the recipe's values but for its sizes, the outlook on its data, and what to tell about each decision."""
    source = found.source.model_dump(mode="json", exclude_defaults=True)
    notes = {"source": f"format {found.source.kind}, {'; '.join(found.reasons)}"}
    pairs, notes["pairs"] = _pairs_of(roles, documents)
    values: dict[str, Any] = {
        "name": name,
        "data": {
            "source": {"kind": found.source.kind, **source},
            "pairs": pairs,
            "split": {"heldout_fraction": 0.1, "sealed_fraction": 0.1},
            "seq_len": USUAL_ROW,
        },
        "promotion": {"model_name": name},
    }
    looked = survey(documents, _valid(values).data)
    outlook = looked.outlook(_valid(values).data)
    if outlook.too_long > 1 - FITTING:
        values["data"]["seq_len"] = LONG_ROW
        notes["seq_len"] = f"rows of {LONG_ROW} tokens: the instruction pairs have {outlook.pair_tokens:.0f} on average"
    wanted = SAFE_CASES * Recipe(name=name).promotion.gate.min_cases
    for fraction in FRACTIONS:
        values["data"]["split"] = {"heldout_fraction": fraction, "sealed_fraction": fraction}
        outlook = looked.outlook(_valid(values).data)
        if min(outlook.documents["sealed"], outlook.documents["heldout"], outlook.pairs["sealed"]) >= wanted:
            break
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in outlook.dropped.items())
    notes["text"] = (
        f"{human_bytes(outlook.text_bytes)} of text in {sum(outlook.documents.values()):,} documents"
        f"{f' (dropped: {dropped})' if dropped else ''}: {outlook.documents['train']:,} to train on, "
        f"{outlook.documents['heldout']:,} held out, {outlook.documents['sealed']:,} sealed"
    )
    notes["count"] = f"about {sum(outlook.pairs.values()):,} instruction pairs of {outlook.pair_tokens:.0f} tokens"
    return values, outlook, notes


def _valid(values: dict[str, Any]) -> Recipe:
    return validate(_completed(values), "the proposed recipe")


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    training = {"seq_len": values["data"]["seq_len"]}
    return {
        **values,
        "pretraining": training,
        "finetuning": training,
        "recursion": {"training": training},
        "correction": {"training": training},
    }


def _pairs_of(roles: Roles | None, documents: Sequence[Document]) -> tuple[dict[str, Any], str]:
    """Return the pairs that fit the data, and why."""
    if roles is not None and roles.messages:
        return {"kind": "conversations", "messages_field": roles.messages}, f"conversations in {roles.messages!r}"
    if roles is not None and roles.prompt:
        pairs = {"kind": "fields", "prompt_field": roles.prompt, "completion_field": roles.answer}
        told = f"{roles.prompt!r} -> {roles.answer!r}"
        if roles.context:
            pairs["context_field"] = roles.context
            told = f"{roles.prompt!r} + {roles.context!r} -> {roles.answer!r}"
        if roles.labels and roles.prompt == roles.text:
            pairs["instruction"] = f"Which is it: {' or '.join(map(', '.join, _but_last(roles.labels)))}?"
            pairs["prompt_words"] = PROMPT_WORDS  # type: ignore[assignment]
            told += f", one of {len(roles.labels)} labels: {', '.join(roles.labels[:4])}{', ...' if len(roles.labels) > 4 else ''}"
        return pairs, f"your own pairs: {told}"
    each = min(
        MOST_QUOTES,
        max(1, round(_mean_words(documents) / WORDS_A_QUOTE)),
        max(1, WANTED_PAIRS // max(1, len(documents))),
    )
    each = max(2, each) if len(documents) < WANTED_PAIRS / 2 else each
    return {"kind": "quotes", "per_document": each}, f"no questions and answers found: {each} quotes of each document"


def _passage_words(documents: Sequence[Document]) -> int:
    words = sum(len(document.text) for document in documents) / USUAL_WORD_CHARS
    return int(min(MOST_PASSAGE_WORDS, max(LEAST_PASSAGE_WORDS, words / PASSAGES)))


def _mean_words(documents: Sequence[Document]) -> float:
    return sum(len(document.text.split()) for document in documents) / max(1, len(documents))


def _but_last(labels: Sequence[str]) -> list[Sequence[str]]:
    return [labels[:-1], labels[-1:]]


def _say_sizes(sizes: Sizes) -> list[str]:
    why = {
        "text": "a few readings are what text is good for",
        "time": "what the minutes allow",
        "least": "the least that changes a model",
    }[sizes.bounded_by]
    return [
        f"a vocabulary of {sizes.vocab_size:,}, {sizes.base['n_layers']} layers of width {sizes.base['d_model']}",
        f"{sizes.pretraining_steps} steps of pre-training read the text {sizes.readings:.1f} times: {why}",
        f"{sizes.finetuning_steps} steps of fine-tuning read the pairs {sizes.pair_readings:.1f} times",
        f"about {clock(sizes.seconds)} on this machine",
    ]


def _name_of(place: str) -> str:
    stem = Path(place).expanduser().name.split(".")[0]
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "own-text"


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w-]*", value):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.lower() in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}:
        return json.dumps(value)
    return f"{value}"


def _parse(text: str) -> dict[str, Any]:
    import yaml

    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def _render(values: dict[str, Any], outlook: Outlook, sizes: Sizes, notes: dict[str, str], minutes: float) -> str:
    data = values["data"]
    seq_len = data["seq_len"]
    rows = "" if seq_len == USUAL_ROW else f", seq_len: {seq_len}"
    few = outlook.pairs["train"]
    prompts = max(8, min(192, few // 2))
    cases = max(20, min(100, outlook.pairs["heldout"]))
    say = dict(zip(("size", "pretraining", "finetuning", "time"), _say_sizes(sizes), strict=True))
    every = max(20, sizes.pretraining_steps // 6)
    every_tuning = max(20, sizes.finetuning_steps // 4)
    later = max(10, min(40, sizes.finetuning_steps // 10))
    return f"""\
# Written by `genai recipe new` for {minutes:g} minutes; {say["time"]} when it was written.
# {notes["text"]}.
# `genai recipe check FILE` forecasts it, `genai recipe schema` explains every key.
name: {values["name"]}
description: {_flow(f"From {data['source']['path']}: {human_bytes(outlook.text_bytes)} of text.")}

data:
  # {notes["source"]}
  source: {_flow(data["source"])}
  # {notes["pairs"]}; {notes["count"]}
  pairs: {_flow(data["pairs"])}
  # held out: looked at while working; sealed: opened by the gate only, which wants 20 cases
  split: {_flow(data["split"])}
  tokenizer: {{kind: train, vocab_size: {sizes.vocab_size}}}
  seq_len: {seq_len}{f"   # {notes['seq_len']}" if "seq_len" in notes else ""}

# {say["size"]}. Copying from the prompt is learned by repeated passages and mimetic weights;
# a base that is trained already (kind: hub, folder, gguf) needs neither, and tokenizer: {{kind: base}}.
repeat_share: 0.4
base: {_flow({"kind": "scratch", "init": "mimetic", **sizes.base, "max_seq_len": 2 * seq_len})}

# {say["pretraining"]}
pretraining:
  steps: {sizes.pretraining_steps}
  global_batch_tokens: {STEP_TOKENS}
  seq_len: {seq_len}
  checkpoint_every_steps: {every}
  evaluate_every_steps: {2 * every}
  optimizer: {{kind: muon}}

# {say["finetuning"]}
finetuning:
  steps: {sizes.finetuning_steps}
  global_batch_tokens: {STEP_TOKENS}
  seq_len: {seq_len}
  checkpoint_every_steps: {every_tuning}
  evaluate_every_steps: {2 * every_tuning}
  optimizer: {{kind: muon, learning_rate: 0.01, adamw_learning_rate: 1.0e-3, weight_decay: 0.0}}

# one generation of verified synthetic data; more where there are many pairs (generations: 0 leaves it out)
recursion:
  generations: 1
  synthesis: {{prompts: {prompts}, samples_per_prompt: 2}}
  training: {{steps: {later}, global_batch_tokens: {STEP_TOKENS}{rows}, optimizer: {{kind: adamw, learning_rate: 3.0e-4}}}}
  probe_samples: {min(48, cases)}
correction:
  prompts: {prompts}
  samples_per_prompt: 4
  training: {{steps: {later}, global_batch_tokens: {STEP_TOKENS}{rows}, optimizer: {{kind: adamw, learning_rate: 1.0e-4}}}}
  measure_prompts: {cases}

evaluation: {{max_documents: 100, max_prompts: 100}}
promotion: {{model_name: {_flow(values["name"])}}}
"""
