"""The page of a run that needs nothing else: stages, curves, evidence, samples, lineage."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from genai_core.config.settings import Settings
from genai_core.errors import GenaiCoreError
from genai_core.evaluation.shots import Cost, calls_until_paid
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from tasks.charts import draw_curves, draw_stages, draw_transitions
from tasks.figures import clock, figures, number
from tasks.session import EXPERIMENT
from tasks.side_by_side import COMPOSE, side_by_side

BAR_PIXELS = 80
SAMPLES = 6

CURVES = {"train/loss": "training loss, nats a token", "eval/bits_per_byte": "held-out bits per byte"}


def render(page: Mapping[str, Any]) -> str:
    """Return the page as HTML; all that comes from data is escaped."""
    from jinja2 import Environment

    template = (files("tasks") / "report.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True).from_string(template).render(page=page)


def describe(report: Mapping[str, Any], store: ArtifactStore, settings: Settings) -> dict[str, Any]:
    """Return what the page shows. An artifact that is gone, or an MLflow that is away, leaves its part out."""
    stages = report["stages"]
    known = {ref.label(): ref for ref in store.list()}
    opened = {stage["name"]: _Opened(stage, known, store) for stage in stages}
    longest = max((stage["seconds"] for stage in stages), default=0.0) or 1.0
    rows = [
        {
            "name": stage["name"],
            "status": stage["status"],
            "seconds": stage["seconds"],
            "forecast": (stage.get("forecast") or {}).get("seconds") if stage["status"] == "computed" else None,
            "width": round(BAR_PIXELS * stage["seconds"] / longest),
            "artifact": opened[stage["name"]].label,
            "figures": figures(stage["metrics"], 4),
            "reasons": stage.get("reasons", []),
        }
        for stage in stages
    ]
    trained = [
        float(opened[stage["name"]].told.get("training_seconds", 0.0))
        for stage in stages
        if stage["status"] == "computed"
    ]
    model = report.get("model")
    generations = [_describe_generation(one) for name, one in opened.items() if name.startswith("measure-g")]
    return {
        "recipe": report["recipe"],
        "status": report["status"],
        "clock": clock(report["seconds"]),
        "computed": sum(stage["status"] == "computed" for stage in stages),
        "reused": sum(stage["status"] == "reused" for stage in stages),
        "goodput": sum(trained) / report["seconds"] if any(trained) and report["seconds"] else None,
        "model": model,
        "gate": "" if not model else "passed" if model["gate"]["passed"] else "refused",
        "rows": rows,
        "charts": _draw_charts(stages, generations, opened, settings),
        "data": _describe_data(opened.get("augment")),
        "generations": generations,
        "correction": _describe_correction(opened.get("measure-correction")),
        "comparison": side_by_side(_read_composed(opened)),
        **_describe_evaluations(opened),
        "costs": _describe_costs(opened, stages),
        "questions": _describe_questions(opened),
        "lineage": _draw_lineage(opened, store),
    }


class _Opened:
    """A stage's artifact, as far as it is still there."""

    def __init__(self, stage: Mapping[str, Any], known: Mapping[str, ArtifactRef], store: ArtifactStore) -> None:
        artifact = stage.get("artifact") or {}
        self.name: str = stage["name"]
        self.reasons: list[str] = stage.get("reasons", [])
        self.label = f"{artifact['name']}@{artifact['version']}" if artifact else ""
        self.ref = known.get(self.label)
        self.told: Mapping[str, Any] = {}
        self._store = store
        self._folder: Path | None = None
        if self.ref is not None:
            try:
                self.told = store.manifest(self.ref.key)["told"]
            except GenaiCoreError:
                self.ref = None

    def read(self, name: str) -> bytes | None:
        """Return a file of the artifact, verified; None if it is not there."""
        if self.ref is None:
            return None
        try:
            self._folder = self._folder or self._store.fetch(self.ref)
        except GenaiCoreError:
            return None
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def json(self, name: str) -> Any:
        """Return a JSON file of the artifact, None if it is not there."""
        content = self.read(name)
        return None if content is None else json.loads(content)


def _read_curves(opened: Mapping[str, _Opened], settings: Settings) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the curves of all trainings by metric; none if MLflow is away or has forgotten them."""
    runs = {
        name: one.told.get("run_id", "")
        for name, one in opened.items()
        if "training_seconds" in one.told and name != "promote"
    }
    if not any(runs.values()):
        return {}
    from genai_core.tracking.runs import Tracker

    tracker = Tracker(settings.tracking_uri, EXPERIMENT, settings.home / "mlartifacts")
    found = {}
    for metric in CURVES:
        try:
            curves = {name: tracker.curve(run_id, metric) for name, run_id in runs.items() if run_id}
        except GenaiCoreError:
            break
        found[metric] = {name: curve for name, curve in curves.items() if curve}
    return found


def _text_bits(stages: Any, generations: Any) -> dict[str, float]:
    """Return bits per byte of held-out documents by model. A training's own figure is of its rows: not the same text."""
    name = "text/bits_per_byte"
    told = {stage["name"]: stage["metrics"].get(f"eval/{name}") for stage in stages}
    bits = {"base": told.get("evaluate-base")}
    for one in generations:
        roles = {"origin": "finetune", "control": f"control-{one['number']}", "candidate": f"g{one['number']}"}
        bits |= {title: one["figures"].get(role, {}).get(name) for role, title in roles.items()}
    bits["candidate"] = told.get("evaluate-candidate")
    return {title: value for title, value in bits.items() if value is not None}


def _draw_charts(stages: Any, generations: Any, opened: Mapping[str, _Opened], settings: Settings) -> dict[str, str]:
    """Return the charts as SVG, by the name of a file."""
    charts = {
        metric.replace("/", "-"): draw_curves(CURVES[metric], curves)
        for metric, curves in _read_curves(opened, settings).items()
        if curves
    }
    bits = _text_bits(stages, generations)
    if len(bits) > 1:
        charts["text-bits_per_byte"] = draw_stages("bits per byte of held-out text, model by model", bits)
    return charts


def _describe_data(augment: _Opened | None) -> dict[str, Any] | None:
    stats = augment.json("stats.json") if augment else None
    if not stats:
        return None
    dropped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(stats["dropped"].items()))
    ngrams = ", ".join(f"{order}-gram {bits:.3f}" for order, bits in stats.get("ngram_bits_per_byte", {}).items())
    sides = {
        side: {name: f"{one[name]:,}" if name in one else "" for name in ("documents", "bytes", "tokens", "pairs")}
        for side, one in stats["sides"].items()
    }
    return {"sides": sides, "read": f"{stats['documents_read']:,}", "dropped": dropped or "none", "ngrams": ngrams}


def _describe_generation(measured: _Opened) -> dict[str, Any]:
    report = measured.json("report.json") or {}
    picture = measured.read("metrics.png")
    verdict = report.get("verdict", {})
    return {
        "title": f"Generation {measured.name.removeprefix('measure-g')}: {verdict.get('decision', 'not there any more')}",
        "number": measured.name.removeprefix("measure-g"),
        "decision": verdict.get("decision", "not there any more"),
        "accepted": report.get("synthetic", {}).get("accepted"),
        "figures": report.get("figures", {}),
        "reasons": verdict.get("reasons", measured.reasons),
        "picture": base64.b64encode(picture).decode() if picture else "",
        "samples": (measured.json("samples.json") or [])[:SAMPLES],
    }


def _describe_correction(measured: _Opened | None) -> dict[str, Any] | None:
    report = measured.json("report.json") if measured else None
    if not measured or not report:
        return None
    prompts = max(1, report["prompts"])
    comparisons = [
        {
            "moment": moment.replace("_", " "),
            "arm": one["arm"],
            "baseline": one["baseline"],
            "difference": _interval(one["right"], signed=True),
            "lost": one["transitions"]["ci"],
            "won": one["transitions"]["ic"],
            "tokens": f"{one['transitions']['tokens_after'] / prompts:.0f} / {one['transitions']['tokens_before'] / prompts:.0f}",
        }
        for moment, one in report["comparisons"].items()
    ]
    lines = (measured.read("answers.jsonl") or b"").splitlines()[:SAMPLES]
    told = [{"moment": moment.replace("_", " "), **one} for moment, one in report["comparisons"].items()]
    return {
        "comparisons": comparisons,
        "samples": [json.loads(line) for line in lines],
        "chart": draw_transitions(told) if told else "",
    }


def _read_composed(opened: Mapping[str, _Opened]) -> dict[str, dict[str, Any]]:
    """Return the reports of composed texts that are still there, by arm and way."""
    reports = {name: one.json("report.json") for name, one in opened.items() if name.startswith(COMPOSE)}
    return {name.removeprefix(COMPOSE): report for name, report in reports.items() if report}


def _describe_evaluations(opened: Mapping[str, _Opened]) -> dict[str, Any]:
    found = []
    for name, one in opened.items():
        report = one.json("report.json") if name.startswith(("evaluate-", "seal-")) else None
        if report:
            intervals = report.get("intervals", {})
            shown = {
                figure: _interval(intervals[figure]) if figure in intervals else number(value)
                for figure, value in report["figures"].items()
            }
            found.append(
                {"title": name.replace("seal-", "sealed: ").replace("evaluate-", "held out: "), "figures": shown}
            )
    return {"evaluations": found, "evaluated": sorted({name for one in found for name in one["figures"]})}


def _describe_costs(opened: Mapping[str, _Opened], stages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return, for each task, what answers cost with examples in the prompt and what they cost after tuning."""
    found: list[dict[str, str]] = []
    few = next((one for name, one in opened.items() if name.startswith("evaluate-base-")), None)
    tuned = opened.get("evaluate-candidate")
    before = few.json("report.json") if few is not None else None
    after = tuned.json("report.json") if tuned is not None else None
    if not before or not after:
        return found
    # all tunings that the candidate went through; a control arm was for comparison only
    trained = sum(
        stage["metrics"].get("tokens_seen", 0.0)
        for stage in stages
        if stage["name"] == "finetune" or stage["name"].startswith(("train-g", "train-corrected"))
    )
    for task in before["cases"]:
        examples, candidate = Cost.of(before["figures"], task), Cost.of(after["figures"], task)
        if examples is None or candidate is None:
            continue
        found.append(
            {
                "task": task,
                "right": f"{examples.right:.1%} and {candidate.right:.1%}",
                "prompt": f"{examples.prompt_tokens:,.0f} and {candidate.prompt_tokens:,.0f}",
                "per_right": " and ".join(
                    "none is right" if cost.per_right == math.inf else f"{cost.per_right:,.0f}"
                    for cost in (examples, candidate)
                ),
                "paid": _paid(calls_until_paid(trained, examples.per_call, candidate.per_call)),
                "trained": f"{trained:,.0f}",
            }
        )
    return found


def _describe_questions(opened: Mapping[str, _Opened]) -> list[dict[str, Any]]:
    """Return the recipe's own questions with the answers of base and candidate, as far as they were asked."""
    answers: dict[str, dict[str, Any]] = {}
    for who in ("base", "candidate"):
        one = opened.get(f"evaluate-{who}")
        for line in (one.read("answers.jsonl") or b"").decode().splitlines() if one is not None else ():
            row = json.loads(line)
            if row["suite"] == "question":
                told = answers.setdefault(row["case_id"], {"ask": row["prompt"]})
                told[who] = {"answer": row["answer"].strip(), "right": row["right"]}
    return list(answers.values())


def _paid(calls: float) -> str:
    return "never" if calls == math.inf else f"{calls:,.0f} calls"


def _interval(value: Mapping[str, float], *, signed: bool = False) -> str:
    mean, low, high = (
        f"{value[end]:+.3f}" if signed else number(round(value[end], 4)) for end in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def _draw_lineage(opened: Mapping[str, _Opened], store: ArtifactStore) -> str:
    """Return the ancestors of the run's model as an SVG: what was made later stands further down."""
    made = [one for one in opened.values() if one.ref is not None]
    last = opened.get("promote") or (made[-1] if made else None)
    if last is None or last.ref is None:
        return ""
    from genai_core.tracking.lineage import Node, lineage

    nodes = {node.identity: node for node in lineage(store.manifest, last.ref).walk()}
    depths: dict[str, int] = {}

    def depth(node: Node) -> int:
        if node.identity not in depths:
            depths[node.identity] = 1 + max((depth(one) for one in node.inputs.values()), default=-1)
        return depths[node.identity]

    width, height, gap, lane = 200, 40, 34, 330
    levels = sorted(nodes.values(), key=lambda node: (depth(node), node.ref.name))
    place = {
        node.identity: (0 if node.ref.kind in ("source", "dataset") else lane, level * (height + gap))
        for level, node in enumerate(levels)
    }
    parts = []
    for node in nodes.values():
        x, y = place[node.identity]
        for parent in node.inputs.values():
            a, b = place[parent.identity]
            if a == x:  # along the outside of the lane, further out the longer the way
                side, out = (a, -1) if not a else (a + width, 1)
                bulge = side + out * min(90, 14 + (y - b) / 8)
                way = f"M{side},{b + height / 2} C{bulge},{b + height / 2} {bulge},{y + height / 2} {side},{y + height / 2}"
            else:
                begin, end = (a + width, x) if a < x else (a, x + width)
                middle = (begin + end) / 2
                way = f"M{begin},{b + height / 2} C{middle},{b + height / 2} {middle},{y + height / 2} {end},{y + height / 2}"
            parts.append(f'<path d="{way}" fill="none" stroke="currentColor" stroke-opacity=".35"/>')
    for node in nodes.values():
        x, y = place[node.identity]
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="var(--box)" stroke="var(--line)"/>'
            f'<text x="{x + 9}" y="{y + 17}" font-size="12" fill="currentColor">{html.escape(node.ref.name[:27])}</text>'
            f'<text x="{x + 9}" y="{y + 32}" font-size="11" fill="currentColor" opacity=".6">'
            f"{html.escape(f'{node.stage or node.ref.kind} {node.ref.version}')}</text>"
        )
    size_x, size_y = lane + width + 190, max(y for _, y in place.values()) + height
    return f'<svg viewBox="-95 -2 {size_x} {size_y + 4}" style="max-width:{size_x}px">{"".join(parts)}</svg>'
