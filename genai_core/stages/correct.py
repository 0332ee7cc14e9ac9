"""Self-correct: learn from verified answers of one's own, and measure what correction brings at its three moments.

sample_corrections    pairs/train.parquet, stats.json, samples.json
measure_correction    report.json, cases.jsonl (one row a prompt), answers.jsonl (to look at)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genai_core.config.generation import SamplingConfig
from genai_core.config.stages import MeasureCorrectionStage, SampleCorrectionsStage
from genai_core.correction.candidates import Candidate, ask_candidates
from genai_core.correction.generation_time.best_of_n import best_of_n
from genai_core.correction.measurement import Arm, measure
from genai_core.correction.post_hoc.revise import revise
from genai_core.correction.training_time.rejection_sampling import corrected_pairs, select_random, select_verified
from genai_core.data.documents import Pair, read_pairs, write_pairs
from genai_core.evaluation.asking import AskedModel
from genai_core.evaluation.benchmarks.calls import OPEN_BOOK, judged_case
from genai_core.evaluation.compare import write_json, write_jsonl
from genai_core.evaluation.runner import choose
from genai_core.feedback.verify import Verifier, is_open_book, open_verifier, read_objects
from genai_core.generation.driver import drive
from genai_core.generation.prompts import open_ruler
from genai_core.generation.types import Completion, Request
from genai_core.recursion.synthesis.requests import invent_requests, write_requests
from genai_core.recursion.synthesis.selection import find_leaking, measured_pairs
from genai_core.stages.contract import StageContext, StageResult

MAX_PER_PROMPT = 1
"""Answers learned from a prompt: the tasks have one right answer, so a second kept one is mostly a wrong one."""

SHOWN = 20
"""Prompts written to be looked at."""


def sample_corrections(config: SampleCorrectionsStage, context: StageContext) -> StageResult:
    """Sample answers to new requests about real training documents with `model`, keep the verified ones to learn from.

    To the training prompts themselves it has learned the answers: there is little left to correct. To another request
    about an object that it knows, it gives a name that it remembers; so the objects have invented names, if the config
    says so. The verifier reads prompts only. No verified answer is a result too: 0 pairs are published.
    """
    corpus = context.inputs["corpus"]
    objects = read_objects(corpus)
    known = [pair for pair in read_pairs(corpus / "pairs" / "train.parquet") if is_open_book(pair)]
    pool = choose(known, _pair_id, config.prompts, config.seed)
    if config.invented_names and objects is not None:
        wanted, invented = invent_requests(pool, objects, config.seed)
        objects |= invented
    else:
        wanted = write_requests(pool, 1, 0, objects or {}, config.seed)
    verifier = Verifier(objects)
    fits = open_ruler(context.inputs["model"])
    pairs = [pair for pair in wanted if fits(_request(pair))]
    sampling = config.sampling.model_copy(update={"seed": config.sampling.seed + config.seed})
    complete = _completer(_ask(context, "model"), sampling, "samples")
    candidates = drive([ask_candidates(pair, config.samples_per_prompt, verifier) for pair in pairs], complete)
    context.check()
    chosen = [select_verified(answers, MAX_PER_PROMPT) for answers in candidates]
    written = corrected_pairs(pairs, chosen)
    leaking = find_leaking(written, measured_pairs(corpus))
    corrected = [pair for index, pair in enumerate(written) if index not in leaking]
    write_pairs(context.output / "pairs" / "train.parquet", corrected)
    stats = {
        **_sampling_stats(pairs, candidates, chosen, verifier, config.seed),
        "too_long": float(len(wanted) - len(pairs)),
        "contaminated": float(len(leaking)),
        "accepted": float(len(corrected)),
    }
    write_json(context.output / "stats.json", stats)
    shown = [
        {
            "pair_id": pair.pair_id,
            "prompt": pair.prompt,
            "before": [{"answer": a.text, "verified": a.is_verified, "remark": a.feedback.text} for a in answers],
            "after": [answer.text for answer in kept],
        }
        for pair, answers, kept in zip(pairs[:SHOWN], candidates, chosen, strict=False)
    ]
    write_json(context.output / "samples.json", shown)
    return StageResult(metrics=stats)


def measure_correction(config: MeasureCorrectionStage, context: StageContext) -> StageResult:
    """Measure on held-out prompts what learning, choosing and revising bring, each against the same budget without it.

    Gold is read only after every answer is written.
    """
    corpus = context.inputs["corpus"]
    verifier = open_verifier(corpus)
    heldout = [pair for pair in read_pairs(corpus / "pairs" / "heldout.parquet") if pair.task in OPEN_BOOK]
    wanted = choose(heldout, _pair_id, config.measure_prompts, config.seed)
    rulers = [open_ruler(context.inputs[role]) for role in ("before", "after")]
    pairs = [pair for pair in wanted if all(fits(_request(pair)) for fits in rulers)]
    sampling = config.sampling.model_copy(update={"seed": config.sampling.seed + config.seed})
    greedy = sampling.model_copy(update={"temperature": 0.0})
    before, after = _ask(context, "before"), _ask(context, "after")
    requests = [_request(pair) for pair in pairs]
    first = before.complete(requests, greedy, "greedy")
    drafts = after.complete(requests, greedy, "greedy")
    context.check()
    chosen = drive(
        [best_of_n(pair, config.best_of, verifier) for pair in pairs], _completer(after, sampling, "candidates")
    )
    context.check()
    episodes = drive(
        [revise(pair, verifier, draft=draft, fits=rulers[1]) for pair, draft in zip(pairs, drafts, strict=True)],
        _completer(after, greedy, "revision"),
    )
    measured = measure(pairs, first, drafts, chosen, episodes, verifier, config.evaluation.bootstrap_draws, config.seed)
    report = {
        "split": "heldout",
        "before": context.refs["before"].label(),
        "model": context.refs["after"].label(),
        "best_of": config.best_of,
        "too_long": len(wanted) - len(pairs),
        **measured.report(),
    }
    write_json(context.output / "report.json", report)
    write_jsonl(context.output / "cases.jsonl", measured.cases())
    write_jsonl(context.output / "answers.jsonl", _answers(pairs, measured.arms))
    return StageResult(metrics=measured.figures())


def _sampling_stats(
    pairs: list[Pair],
    candidates: list[list[Candidate]],
    chosen: list[list[Candidate]],
    verifier: Verifier,
    seed: int,
) -> dict[str, float]:
    """Return the figures of a sampling. Gold is read here, after the choice: how much of it is right, beside chance."""
    control = [
        select_random(answers, len(kept), f"{seed}/{pair.pair_id}")
        for pair, answers, kept in zip(pairs, candidates, chosen, strict=True)
    ]
    samples = [answer for answers in candidates for answer in answers]
    return {
        "prompts": float(len(pairs)),
        "samples": float(len(samples)),
        "verified_share": _share([answer.is_verified for answer in samples]),
        "solved_share": _share([bool(kept) for kept in chosen]),
        "right_of_accepted": _share(_rights(pairs, chosen, verifier)),
        "right_of_random": _share(_rights(pairs, control, verifier)),
        "generated_tokens": float(sum(answer.completion.n_tokens for answer in samples)),
    }


def _rights(pairs: list[Pair], chosen: list[list[Candidate]], verifier: Verifier) -> list[bool]:
    return [
        bool(judged_case(pair, answer.text, verifier)["right"])
        for pair, answers in zip(pairs, chosen, strict=True)
        for answer in answers
    ]


def _answers(pairs: list[Pair], arms: dict[str, Arm]) -> list[dict[str, Any]]:
    """Return what every arm said to the first prompts."""
    return [
        {
            "case_id": pair.pair_id,
            "prompt": pair.prompt,
            "gold": pair.completion,
            "answers": {name: arm.answers[index] for name, arm in arms.items()},
        }
        for index, pair in enumerate(pairs[:SHOWN])
    ]


def _completer(model: AskedModel, sampling: SamplingConfig, part: str) -> Callable[[list[Request]], list[Completion]]:
    """Return what the driver asks: every round has its own shards, since a shard is found again by name and number."""
    rounds = iter(range(1_000_000))
    return lambda requests: model.complete(requests, sampling, f"{part}-{next(rounds)}")


def _ask(context: StageContext, role: str) -> AskedModel:
    return AskedModel(role, context.inputs[role], context.workers.map_shards, context.job.compute)


def _share(claims: list[bool]) -> float:
    return sum(claims) / len(claims) if claims else 0.0


def _request(pair: Pair) -> Request:
    return Request(row_id=pair.pair_id, prompt=pair.prompt)


def _pair_id(pair: Pair) -> str:
    return pair.pair_id
