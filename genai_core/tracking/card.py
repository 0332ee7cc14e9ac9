"""The model card: what a stranger must know before using a version, as README.md with a YAML header.

Two calls with the same facts give the same text: there is no date, host or version number in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from genai_core.tracking.licences import NOT_STATED, Licence, joint_licence
from genai_core.tracking.lineage import Node

LIMITS = (
    "Text only. Answers can be wrong, invented or out of date; check what matters.",
    "It knows the domain of its data and little beside it, and was not trained to refuse harmful requests.",
    "Personal data was masked by patterns, which miss some.",
)


@dataclass(frozen=True)
class ModelKind:
    """How a stranger loads and uses a model."""

    what: str
    """With its article, as a sentence begins."""
    loader: str
    """Class of transformers that loads the folder."""
    pipeline: str
    """Task by which a hub sorts it."""
    in_transformers: bool = True
    """Whether transformers alone also uses it as it was trained."""


CAUSAL = ModelKind("A causal language model", "AutoModelForCausalLM", "text-generation")
ENCODER = ModelKind("An encoder with a masked-language-modelling head,", "AutoModelForMaskedLM", "fill-mask")
DIFFUSION = ModelKind("A language model that writes by diffusion,", "AutoModelForCausalLM", "text-generation", False)


@dataclass(frozen=True)
class Evidence:
    """One measured difference: candidate minus baseline, with its interval over the cases."""

    figure: str
    """Such as 'text/bits_per_byte'; of the sealed split."""
    against: str
    """Name of the baseline: base, champion, a constant answer."""
    candidate: float
    baseline: float
    difference: float
    low: float
    high: float
    cases: int


def model_card(
    *,
    model_name: str,
    lineage: Node,
    evidence: Sequence[Evidence],
    figures: Mapping[str, float],
    gate_passed: bool,
    gate_reasons: Sequence[str],
    sealed_openings: int,
    confidence: float = 0.95,
    licences: Sequence[Licence] = (),
    base_model: str = "",
    tags: Sequence[str] = (),
    limits: Sequence[str] = LIMITS,
    kind: ModelKind = CAUSAL,
) -> str:
    """Return README.md.

    Args:
        lineage: of the model.
        evidence: the comparisons the gate judged.
        figures: of the candidate, also those that have no baseline.
        sealed_openings: how often the sealed split has been opened, this time included.
        licences: of data and base, as `licences_of` finds them.
        base_model: hub id or name of the base; '' when trained from scratch.
        kind: what it is and how it is loaded.
    """
    sections = [
        _header(licences, base_model, tags, kind),
        f"# {model_name}\n\n{_summary(lineage, base_model, kind)}",
        f"## How to load\n\n{_loading(model_name, kind)}",
        f"## Evidence\n\n{_evidence(evidence, figures, sealed_openings, confidence)}",
        f"## Gate\n\n{_gate(gate_passed, gate_reasons)}",
        f"## Data\n\n{_data(lineage, base_model)}",
        f"## Licences\n\n{licences_text(licences)}",
        f"## Lineage\n\nNewest first; everything below an entry went into it.\n\n{lineage.markdown()}",
        f"## Training\n\n{_training(lineage)}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits),
    ]
    return "\n\n".join(sections) + "\n"


def exported_card(
    *,
    name: str,
    file: str,
    licences: Sequence[Licence],
    lineage: Node | None = None,
    registered: str = "",
    kind: ModelKind = CAUSAL,
) -> str:
    """Return README.md of an exported model.

    Args:
        file: name of the GGUF file; '' for a folder of transformers.
        lineage: None: nothing is recorded of it.
        registered: the card under which it is registered, without header; its evidence and gate are carried over.
        kind: what it is and how it is loaded.
    """
    base = next((one.name for one in licences if one.role == "base"), "")
    said = {title: text for title, text in _sections(registered) if title not in {"How to load", "Licences"}}
    if not said and lineage is not None:
        said = {
            "": f"# {name}\n\n{_summary(lineage, base, kind)}",
            "Data": _data(lineage, base),
            "Lineage": lineage.markdown(),
            "Training": _training(lineage),
            "Limits": "\n".join(f"- {limit}" for limit in LIMITS),
        }
    first = said.pop("", f"# {name}\n\nExported by `genai` from a folder of which nothing is recorded.")
    parts = [
        _header(licences, base, (), kind),
        first,
        f"## How to load\n\n{_loading_export(file, kind)}",
        f"## Licences\n\n{licences_text(licences)}",
    ]
    return "\n\n".join([*parts, *(f"## {title}\n\n{text}" for title, text in said.items())]) + "\n"


def _sections(card: str) -> list[tuple[str, str]]:
    """Return heading and text of each part of a card; the first has no heading."""
    first, *others = f"\n{card.strip()}".split("\n## ")
    parts = [("", first.strip()), *((part.partition("\n")[0], part.partition("\n")[2].strip()) for part in others)]
    return [(title, text) for title, text in parts if text]


LEFT_OUT_FIRST = ("Training", "How to load", "Limits", "Data", "Licences")
"""Sections that a description does without where it may not hold all: settings are told by the run, too, and lineage
and evidence nowhere else on the page."""

REST = "*The rest is in README.md, among the model's files.*\n"


def shortened(card: str, length: int) -> str:
    """Return a card of at most so many characters: without whole sections, and only then cut, at the end of a line.

    What does not hold all ends with `REST`.
    """
    if len(card) <= length:
        return card
    parts = _sections(card)
    for title in LEFT_OUT_FIRST:
        parts = [part for part in parts if part[0] != title]
        text = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in parts) + f"\n\n{REST}"
        if len(text) <= length:
            return text
    return text[: length - len(REST) - 2].rpartition("\n")[0].rstrip() + f"\n\n{REST}"


def without_header(card: str) -> str:
    """Return a card without its YAML header."""
    return card.split("---\n", 2)[2].lstrip() if card.startswith("---\n") and card.count("---\n") >= 2 else card


def with_loading(card: str, file: str, kind: ModelKind = CAUSAL) -> str:
    """Return somebody's card with the part on loading replaced, where it has one; see `exported_card`."""
    before, mark, behind = card.partition("\n## How to load\n")
    if not mark:
        return card
    _, next_mark, rest = behind.partition("\n## ")
    return f"{before}{mark}\n{_loading_export(file, kind)}\n{next_mark}{rest}"


def _loading_export(file: str, kind: ModelKind) -> str:
    if file:
        return f"With llama.cpp; the chat template is in the file:\n\n```bash\nllama-cli -m {file}\n```"
    lines = [
        "```python",
        f"from transformers import {kind.loader}, AutoTokenizer",
        "",
        'folder = "."  # where this file lies',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {kind.loader}.from_pretrained(folder)",
        "```",
    ]
    return "\n".join([*lines, *_beyond(kind)])


def _beyond(kind: ModelKind) -> list[str]:
    """Return what is to be said where loading is not all that it takes."""
    if kind.in_transformers:
        return []
    return [
        "",
        "The weights load as above, but `generate` of transformers goes from left to right, which this model was not "
        "trained for: it fills in masks, with `genai generate` and `genai chat`.",
    ]


def licences_text(licences: Sequence[Licence]) -> str:
    """Return the table of what was used under which licence, and what follows for the model."""
    if not licences:
        return "Nothing is recorded of what it was made of."
    rows = ["| made of | name | licence |", "|---|---|---|"]
    rows += [f"| {one.role} | {words(one.name)} | {words(one.text) or NOT_STATED} |" for one in licences]
    license_id, names = joint_licence(licences)
    text = (
        f"They do not all state one licence ({words(names)}), so the card says `other`: read each before passing the model on."
        if names
        else f"All of it is under {words(license_id)}."
    )
    return "\n".join(rows) + f"\n\n{text}"


def _header(licences: Sequence[Licence], base_model: str, tags: Sequence[str], kind: ModelKind) -> str:
    license_id, names = joint_licence(licences)
    head: dict[str, Any] = {
        "library_name": "transformers",
        "license": license_id,
        "pipeline_tag": kind.pipeline,
        "tags": sorted({"genai", *tags}),
    }
    if names:
        head["license_name"] = names
    if base_model:
        head["base_model"] = base_model
    return f"---\n{yaml.safe_dump(head, sort_keys=True, allow_unicode=True).strip()}\n---"


def _summary(lineage: Node, base_model: str, kind: ModelKind) -> str:
    start = f"from {words(base_model)}" if base_model else "from random weights"
    return (
        f"{kind.what} trained {start} by `genai`. Artifact `{lineage.ref.label()}`, "
        f"stage key `{lineage.ref.key}`, content sha256 `{lineage.ref.digest}`."
    )


def _loading(model_name: str, kind: ModelKind) -> str:
    lines = [
        "Nothing of `genai` is needed:" if kind.in_transformers else "Plain transformers loads it:",
        "",
        "```python",
        "import mlflow",
        f"from transformers import {kind.loader}, AutoTokenizer",
        "",
        f'folder = mlflow.artifacts.download_artifacts("models:/{model_name}@champion")',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {kind.loader}.from_pretrained(folder)",
    ]
    if kind == CAUSAL:
        lines += [
            'chat = [{"role": "user", "content": "..."}]',
            "inputs = tokenizer.apply_chat_template(",
            '    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True',
            ")",
            "answer = model.generate(**inputs, max_new_tokens=64)",
            'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ]
    return "\n".join([*lines, "```", *_beyond(kind)])


def _evidence(evidence: Sequence[Evidence], figures: Mapping[str, float], openings: int, confidence: float) -> str:
    parts = []
    if evidence:
        parts.append(
            "On the sealed split. Differences are candidate minus baseline with a paired bootstrap interval "
            f"({confidence:.0%}) over the cases."
        )
    else:
        parts.append("There was nothing to compare with.")
    if evidence or figures:
        parts.append(evidence_table(evidence, figures))
    parts.append(
        f"The sealed split had been opened {openings} time{'' if openings == 1 else 's'} when this was judged; "
        "each further opening makes its verdict weaker."
    )
    return "\n\n".join(parts)


def evidence_table(evidence: Sequence[Evidence], figures: Mapping[str, float] | None = None) -> str:
    """Return a table with a row for each figure and two columns for each baseline: its value, and the difference to it.

    Args:
        figures: of the candidate, also those that were compared with nothing.
    """
    baselines = sorted({row.against for row in evidence})
    compared = {(row.figure, row.against): row for row in evidence}
    values = {**(figures or {}), **{row.figure: row.candidate for row in evidence}}
    cases = {row.figure: str(row.cases) for row in evidence}
    head = ["figure", "candidate", *(title for name in baselines for title in (name, "difference")), "cases"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for figure in sorted(values):
        cells = [words(figure), f"{values[figure]:.4g}"]
        for name in baselines:
            row = compared.get((figure, name))
            told = (
                (f"{row.baseline:.4g}", f"{row.difference:+.4g} [{row.low:+.4g}, {row.high:+.4g}]") if row else ("", "")
            )
            cells += told
        lines.append(f"| {' | '.join([*cells, cases.get(figure, '')])} |")
    return "\n".join(lines)


def _gate(passed: bool, reasons: Sequence[str]) -> str:
    verdict = "**Passed.**" if passed else "**Refused: this version did not become champion.**"
    return "\n".join([verdict, "", *(f"- {reason}" for reason in reasons)]).rstrip()


def _data(lineage: Node, base_model: str) -> str:
    rows = ["| source | content sha256 |", "|---|---|"]
    for node in sorted(lineage.walk(), key=lambda node: (node.ref.name, node.ref.digest)):
        if not node.ref.key:
            rows.append(f"| {words(node.ref.name)} | `{node.ref.digest[:16]}` |")
    text = "\n".join(rows)
    if base_model:
        text += f"\n\nBase model: {words(base_model)}."
    return text


def _training(lineage: Node) -> str:
    parts = []
    for node in lineage.walk():
        if node.stage and node.config:
            config = json.dumps(node.config, indent=1, sort_keys=True, ensure_ascii=False)
            commit = f", commit `{node.commit}`" if node.commit else ""
            parts.append(
                f"<details><summary>{node.stage}: {node.ref.label()}{commit}</summary>\n\n```json\n{config}\n```\n\n</details>"
            )
    return "\n\n".join(parts) or "Not recorded."


def words(text: str) -> str:
    """Return what a person or the data wrote as Markdown that says just that: no tag, link, picture or cell of its own."""
    return re.sub(r"([\\`*\[\]<|])", r"\\\1", text.replace("\n", " "))
