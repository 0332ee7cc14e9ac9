"""The model card: what a stranger must know before using a version, as README.md with a YAML header.

Two calls with the same facts give the same text: there is no date, host or version number in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from genai_core.tracking.lineage import Node

LIMITS = (
    "Text only. Answers can be wrong, invented or out of date; check what matters.",
    "It knows the domain of its data and little beside it, and was not trained to refuse harmful requests.",
    "Personal data was masked by patterns, which miss some.",
)


@dataclass(frozen=True)
class Evidence:
    """One measured difference: candidate minus baseline, with its interval over the cases."""

    figure: str
    """Such as 'sealed/bits_per_byte'."""
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
    license_id: str = "other",
    base_model: str = "",
    base_license: str = "",
    data_licenses: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    limits: Sequence[str] = LIMITS,
    needs_genai_core: str = "",
) -> str:
    """Return README.md.

    Args:
        lineage: of the model.
        evidence: the comparisons the gate judged.
        figures: single figures of the candidate that have no baseline.
        sealed_openings: how often the sealed split has been opened, this time included.
        license_id: of the model itself, as an SPDX or hub id; 'other' if it must be worked out from data and base.
        base_model: hub id or name of the base; '' when trained from scratch.
        data_licenses: licence by source name.
        needs_genai_core: capability that plain transformers cannot give, '' if there is none.
    """
    sections = [
        _header(license_id, base_model, tags),
        f"# {model_name}\n\n{_summary(lineage, base_model)}",
        f"## How to load\n\n{_loading(model_name, needs_genai_core)}",
        f"## Evidence\n\n{_evidence(evidence, figures, sealed_openings, confidence)}",
        f"## Gate\n\n{_gate(gate_passed, gate_reasons)}",
        f"## Data\n\n{_data(lineage, data_licenses or {}, base_model, base_license)}",
        f"## Lineage\n\nNewest first; everything below an entry went into it.\n\n{lineage.markdown()}",
        f"## Training\n\n{_training(lineage)}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits),
    ]
    return "\n\n".join(sections) + "\n"


def _header(license_id: str, base_model: str, tags: Sequence[str]) -> str:
    head: dict[str, Any] = {
        "library_name": "transformers",
        "license": license_id,
        "pipeline_tag": "text-generation",
        "tags": sorted({"genai", *tags}),
    }
    if base_model:
        head["base_model"] = base_model
    return f"---\n{yaml.safe_dump(head, sort_keys=True, allow_unicode=True).strip()}\n---"


def _summary(lineage: Node, base_model: str) -> str:
    start = f"from {base_model}" if base_model else "from random weights"
    return (
        f"A causal language model trained {start} by `genai`. Artifact `{lineage.ref.label()}`, "
        f"stage key `{lineage.ref.key}`, content sha256 `{lineage.ref.digest}`."
    )


def _loading(model_name: str, needs_genai_core: str) -> str:
    lines = [
        "Nothing of `genai` is needed:",
        "",
        "```python",
        "import mlflow",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'folder = mlflow.artifacts.download_artifacts("models:/{model_name}@champion")',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        'chat = [{"role": "user", "content": "..."}]',
        "inputs = tokenizer.apply_chat_template(",
        '    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        "answer = model.generate(**inputs, max_new_tokens=64)",
        'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        "```",
    ]
    if needs_genai_core:
        lines += ["", f"The weights load as above, but {needs_genai_core} needs `genai_core`."]
    return "\n".join(lines)


def _evidence(evidence: Sequence[Evidence], figures: Mapping[str, float], openings: int, confidence: float) -> str:
    parts = []
    if evidence:
        parts.append(
            f"Differences are candidate minus baseline with a paired bootstrap interval ({confidence:.0%}) over the cases."
        )
        rows = [
            "| figure | against | candidate | baseline | difference | interval | cases |",
            "|---|---|---|---|---|---|---|",
        ]
        rows += [
            f"| {_cell(row.figure)} | {_cell(row.against)} | {row.candidate:.4g} | {row.baseline:.4g} | "
            f"{row.difference:+.4g} | {row.low:+.4g} … {row.high:+.4g} | {row.cases} |"
            for row in sorted(evidence, key=lambda row: (row.figure, row.against))
        ]
        parts.append("\n".join(rows))
    else:
        parts.append("There was nothing to compare with.")
    if figures:
        parts.append("All figures of this version on the sealed split:")
        rows = ["| figure | value |", "|---|---|"]
        rows += [f"| {_cell(name)} | {figures[name]:.4g} |" for name in sorted(figures)]
        parts.append("\n".join(rows))
    parts.append(
        f"The sealed split had been opened {openings} time{'' if openings == 1 else 's'} when this was judged; "
        "each further opening makes its verdict weaker."
    )
    return "\n\n".join(parts)


def _gate(passed: bool, reasons: Sequence[str]) -> str:
    verdict = "**Passed.**" if passed else "**Refused: this version did not become champion.**"
    return "\n".join([verdict, "", *(f"- {reason}" for reason in reasons)]).rstrip()


def _data(lineage: Node, licenses: Mapping[str, str], base_model: str, base_license: str) -> str:
    rows = ["| source | content sha256 | licence |", "|---|---|---|"]
    for node in sorted(lineage.walk(), key=lambda node: (node.ref.name, node.ref.digest)):
        if not node.ref.key:
            told = licenses.get(node.ref.name) or (base_license if base_model and node.ref.name == base_model else "")
            rows.append(f"| {_cell(node.ref.name)} | `{node.ref.digest[:16]}` | {_cell(told) or 'not stated'} |")
    text = "\n".join(rows)
    if base_model:
        text += f"\n\nBase model: {base_model}, licence: {base_license or 'not stated'}."
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


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
