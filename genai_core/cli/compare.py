"""`genai compare`: two models side by side: figures with intervals, what they were made of, and answers to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genai_core.cli.generate import read_prompts
from genai_core.cli.heldout import heldout_pairs, open_corpus, walk
from genai_core.cli.locate import locate_folder, locate_version, open_artifacts
from genai_core.cli.options import settings_of
from genai_core.config.generation import SamplingConfig
from genai_core.config.settings import Settings
from genai_core.data.documents import Pair
from genai_core.errors import ConfigError, GenaiCoreError
from genai_core.evaluation.compare import Difference, Report, compare
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.tracking.lineage import Node
from tasks.figures import number

DRAWS = 2000
SHOWN = ("bits_per_byte", "right", "answer_loss")
"""Metrics of the table; --json has all."""

LOWER_IS_BETTER = ("bits_per_byte", "nats_per_token", "answer_loss", "answer_bits_per_byte")
LONGEST_LINE = 600
"""Characters of a prompt that are shown."""


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    title: str
    folder: Path
    ref: ArtifactRef | None = None
    nodes: Sequence[Node] = ()
    registered: Mapping[str, float] = field(default_factory=dict)


def compare_models(
    a: str, b: str, prompts: Path | None, samples: int, max_new_tokens: int, out: Path | None, mlflow: str, storage: str
) -> None:
    """Print both models' figures, what differs in their making, and their answers to the same prompts."""
    if a == b:
        raise ConfigError(f"{a} is named twice. Name two models; `genai models` and `genai storage ls` list them.")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"--json {out}: there is no folder {out.absolute().parent}. Make it, or choose another.")
    asked = [one.prompt for one in read_prompts(prompts, "prompt", 1)] if prompts else []
    settings = settings_of(storage, mlflow)
    store = open_artifacts(settings)
    sides = [open_side(a, settings, store), open_side(b, settings, store)]
    console = Console(highlight=False)
    for letter, side in zip("AB", sides, strict=True):
        console.print(Text.assemble((f"{letter}  ", "bold"), side.title), soft_wrap=True)
    if sides[0].ref and sides[1].ref and sides[0].ref.digest == sides[1].ref.digest:
        console.print("They are the same, byte for byte.")
    found = {split: differences_of(sides, split, store) for split in ("heldout", "sealed")}
    show_figures(console, found, sides)
    making = differing_keys(sides)
    show_making(console, making)
    pairs = [] if prompts else pairs_of(sides[0], store, samples)
    answers = ask(sides, [pair.prompt for pair in pairs] or asked, max_new_tokens) if samples else []
    judge_all(answers, pairs, sides[0], store)
    show_answers(console, answers, bool(pairs or asked))
    if out is not None:
        told = {
            "a": sides[0].title,
            "b": sides[1].title,
            "figures": {
                split: [_difference_json(one) for one in differences or []] for split, differences in found.items()
            },
            "differs": [{"what": what, "a": of_a, "b": of_b} for what, of_a, of_b in making],
            "answers": answers,
        }
        out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_side(model: str, settings: Settings, store: ArtifactStore) -> Side:
    """Return one of the two models. Raises ModelError or ConfigError where there is none."""
    if Path(model).is_dir():
        return Side(title=model, folder=locate_folder(model, settings))
    ref, version = locate_version(model, settings)
    named = f"{version.model_name} version {version.version}, artifact " if version else ""
    gate = f", gate {version.tags['gate']}" if version and "gate" in version.tags else ""
    return Side(
        title=f"{named}{ref.label()}{gate}",
        folder=store.fetch(ref),
        ref=ref,
        nodes=walk(ref, store),
        registered=version.metrics if version else {},
    )


def reports_of(side: Side, split: str, store: ArtifactStore) -> dict[str, Report]:
    """Return the evaluations of a model on a split that are in the store, by the digest of the corpus."""
    found: dict[str, Report] = {}
    for ref in store.list() if side.ref else ():
        if ref.kind != ArtifactKind.REPORT:
            continue
        told = store.manifest(ref.key)["told"]
        inputs = told.get("inputs", {})
        measured = told.get("stage") == "evaluate" and told.get("config", {}).get("split") == split
        if measured and side.ref and inputs.get("model", {}).get("digest") == side.ref.digest:
            found[inputs["corpus"]["digest"]] = Report.read(store.fetch(ref))
    return found


def differences_of(sides: Sequence[Side], split: str, store: ArtifactStore) -> list[Difference] | None:
    """Return B minus A on the cases that both were measured on, paired; None where no corpus is shared."""
    of_a, of_b = (reports_of(side, split, store) for side in sides)
    shared = [corpus for corpus in of_a if corpus in of_b]
    return compare(of_b[shared[-1]], of_a[shared[-1]], DRAWS, 0) if shared else None


def show_figures(console: Console, found: Mapping[str, list[Difference] | None], sides: Sequence[Side]) -> None:
    """Print a table for each split that both were measured on; else what the registry has, or how to measure."""
    for split, differences in found.items():
        if not differences:
            continue
        console.print(Text(f"\nfigures, {split} split (B - A paired, 95 % interval)", style="bold"))
        table = _table("", "A", "B", "B - A", "interval", "n")
        for one in differences:
            if one.metric.rpartition("/")[2] in SHOWN:
                low, high = one.interval.low, one.interval.high
                table.add_row(
                    one.metric.replace("_", " "),
                    f"{one.baseline:.3f}",
                    f"{one.candidate:.3f}",
                    Text(f"{one.interval.mean:+.3f}", style=_verdict_style(one)),
                    f"{low:+.3f} .. {high:+.3f}",
                    str(one.n),
                )
        console.print(table)
    if any(found.values()):
        return
    shared = sorted(set(sides[0].registered) & set(sides[1].registered))
    if shared:
        console.print(Text("\nregistered figures (their cases are not in this store: no interval)", style="bold"))
        table = _table("", "A", "B")
        for name in shared:
            table.add_row(name.replace("_", " "), *(number(side.registered[name]) for side in sides))
        console.print(table)
        return
    console.print(Text("\nfigures", style="bold"))
    _print_indented(
        console,
        Text("No evaluation of both on one corpus is in this store. `genai evaluate MODEL --recipe RECIPE` makes one."),
    )


def _verdict_style(one: Difference) -> str:
    if one.interval.low <= 0 <= one.interval.high:
        return ""
    falls = one.interval.high < 0
    return "green" if falls == (one.metric.rpartition("/")[2] in LOWER_IS_BETTER) else "red"


def differing_keys(sides: Sequence[Side]) -> list[tuple[str, str, str]]:
    """Return (what, of A, of B) of all that differs: the model's shape, data and base, and the keys of every stage."""
    told = [{**_shape(side.folder), **_lineage_keys(side.nodes)} for side in sides]
    names = list(dict.fromkeys([*told[0], *told[1]]))
    pairs = [(name, told[0].get(name, "-"), told[1].get(name, "-")) for name in names]
    return [(name, of_a, of_b) for name, of_a, of_b in pairs if of_a != of_b]


def _shape(folder: Path) -> dict[str, str]:
    from safetensors import safe_open

    numbers = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                size = 1
                for side in weights.get_slice(name).get_shape():
                    size *= side
                numbers += size
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size")
    shape = {f"model.{key}": str(config[key]) for key in keys if key in config}
    return {"model.parameters": f"{numbers:,}", "model.type": str(config.get("model_type", "")), **shape}


def _lineage_keys(nodes: Sequence[Node]) -> dict[str, str]:
    """Return every fact of a model's making by a name that is the same for the same stage of another model."""
    found: dict[str, str] = {}
    counted: dict[str, int] = {}
    for node in reversed(nodes):
        if not node.ref.key:
            found[f"made of {node.ref.name}"] = node.ref.version
            continue
        counted[node.stage] = counted.get(node.stage, 0) + 1
        stage = f"{node.stage} {counted[node.stage]}" if counted[node.stage] > 1 else node.stage
        found[stage] = "done"
        found.update({f"{stage}.{key}": value for key, value in _flat(node.config)})
    return found


def _flat(config: Mapping[str, Any], before: str = "") -> Sequence[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in sorted(config.items()):
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{key}.")
        else:
            rows.append((f"{before}{key}", str(value)))
    return rows


def show_making(console: Console, making: Sequence[tuple[str, str, str]]) -> None:
    """Print what differs between the two; a stage that only one has is one line, not one for each of its keys."""
    console.print(Text("\nwhat differs", style="bold"))
    lone = {what for what, of_a, of_b in making if "done" in (of_a, of_b)}
    rows = [row for row in making if row[0] in lone or row[0].split(".")[0] not in lone]
    if not rows:
        same = "Nothing that is recorded: shape, data, base and the config of every stage are the same."
        _print_indented(console, Text(same))
        return
    table = _table("", "A", "B", wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def pairs_of(side: Side, store: ArtifactStore, count: int) -> list[Pair]:
    """Return held-out pairs of a model's corpus; none where its lineage has none."""
    corpus = open_corpus(side.ref, store) if side.ref else None
    return heldout_pairs(corpus, count) if corpus else []


def ask(sides: Sequence[Side], prompts: Sequence[str], max_new_tokens: int) -> list[dict[str, Any]]:
    """Return {"prompt", "a", "b"} of each prompt: the most likely answers; a prompt that is too long has none."""
    from genai_core.data.tokenizer import load_tokenizer
    from genai_core.generation.diffusion_engine import open_engine
    from genai_core.generation.prompts import encode_request, longest_row
    from genai_core.generation.types import Request
    from genai_core.models.load import load_model

    rows: list[dict[str, Any]] = [{"prompt": prompt} for prompt in prompts]
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=max_new_tokens)
    for letter, side in zip("ab", sides if rows else (), strict=False):
        model, tokenizer = load_model(side.folder), load_tokenizer(side.folder)
        longest = longest_row(model.config)
        requests = [Request(row_id=str(index), prompt=row["prompt"]) for index, row in enumerate(rows)]
        fits = [one for one in requests if longest is None or len(encode_request(tokenizer, one)) < longest]
        for answer in open_engine(model, tokenizer, side.folder).generate(fits, sampling):
            rows[int(answer.row_id)][letter] = answer.text.strip()
    return rows


def judge_all(answers: Sequence[dict[str, Any]], pairs: Sequence[Pair], side: Side, store: ArtifactStore) -> None:
    """Add {"gold", "a_right", "b_right"} to each answer of a pair that has a check."""
    from genai_core.evaluation.benchmarks.calls import passes
    from genai_core.feedback.verify import open_verifier

    corpus = open_corpus(side.ref, store) if side.ref and pairs else None
    verifier = open_verifier(corpus) if corpus else None
    for row, pair in zip_longest(answers, pairs):
        if verifier is None or row is None or pair is None or not pair.check:
            continue
        row["gold"] = pair.completion
        for letter in "ab":
            if letter in row:
                try:
                    row[f"{letter}_right"] = passes(verifier.judge(pair, row[letter], use_gold=True))
                except GenaiCoreError:  # a check of another release: shown without a verdict
                    continue


def show_answers(console: Console, answers: Sequence[Mapping[str, Any]], are_there_prompts: bool) -> None:
    """Print each prompt with both answers; right ones are marked and green, wrong ones marked and red."""
    if not answers:
        if not are_there_prompts:
            none = "No held-out prompts: A's corpus is not in this store. Give --prompts FILE to see answers."
            console.print()
            _print_indented(console, Text(none))
        return
    console.print(Text("\nanswers", style="bold"))
    for row in answers:
        prompt = row["prompt"]
        shown = prompt if len(prompt) <= LONGEST_LINE else f"{prompt[:LONGEST_LINE]} ..."
        console.print()
        _print_indented(console, Text(shown, style="dim"))
        for letter in "ab":
            is_right = row.get(f"{letter}_right")
            mark = {True: "right", False: "wrong", None: ""}[is_right]
            style = {True: "green", False: "red", None: ""}[is_right]
            answer = row.get(letter)
            said = "(the prompt is longer than it holds)" if answer is None else answer or "(nothing)"
            head = f"{letter.upper()} {mark:<5} " if mark else f"{letter.upper()} "
            _print_indented(console, Text.assemble((head, f"bold {style}".strip()), (said, style)))
        if "gold" in row and not (row.get("a_right") and row.get("b_right")):
            _print_indented(console, Text(f"wanted  {row['gold']}", style="dim"))
    judged = [row for row in answers if "a_right" in row and "b_right" in row]
    if judged:
        counts = [sum(row[f"{letter}_right"] for row in judged) for letter in "ab"]
        console.print(f"\n  right: A {counts[0]}, B {counts[1]} of {len(judged)} shown")


def _print_indented(console: Console, text: Text) -> None:
    for line in text.wrap(console, max(20, console.width - 2)):
        line.rstrip()
        console.print(Text("  ").append_text(line) if line else "")


def _table(*headings: str, wrap: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        if wrap:
            table.add_column(heading, overflow="fold", ratio=1 if index else None, max_width=None if index else 44)
        else:
            table.add_column(heading, no_wrap=True, justify="left" if index == 0 else "right")
    return table


def _difference_json(one: Difference) -> dict[str, Any]:
    return {"metric": one.metric, "a": one.baseline, "b": one.candidate, "b_minus_a": one.interval.to_json()}
