"""Synthesize: the model writes pairs about real documents, a machine keeps the verified and new ones.

pairs/train.parquet   accepted pairs, origin synthetic-g<n>, each with its check
stats.json            raw, accepted, rejected by reason, acceptance rate, duplicate share of the raw samples
samples.json          a few samples of every fate, to look at
"""

from __future__ import annotations

from genai_core.config.stages import SynthesizeStage
from genai_core.data.documents import Pair, read_pairs, write_pairs
from genai_core.evaluation.compare import write_json
from genai_core.evaluation.runner import choose
from genai_core.feedback.verify import read_objects
from genai_core.generation.driver import drive
from genai_core.recursion.synthesis.requests import can_be_varied, write_requests
from genai_core.recursion.synthesis.selection import Selection, measured_pairs, select
from genai_core.recursion.synthesis.vary import vary
from genai_core.stages.contract import StageContext, StageResult
from genai_core.stages.evaluate import ask


def synthesize(config: SynthesizeStage, context: StageContext) -> StageResult:
    """Ask `model` about real training documents of `corpus`; publish what is verified, new and in no evaluation split.

    The documents are the same in every generation (a fixed real pool), what is asked about them and the noise are not.
    """
    corpus, synthesis = context.inputs["corpus"], config.synthesis
    real = read_pairs(corpus / "pairs" / "train.parquet")
    wanted = choose(
        [pair for pair in real if can_be_varied(pair)], lambda pair: pair.pair_id, synthesis.prompts, synthesis.seed
    )
    objects = read_objects(corpus) or {}
    model = ask(context, "model")
    asked = model.fitting(
        write_requests(wanted, synthesis.samples_per_prompt, config.generation, objects, synthesis.seed)
    )
    [samples] = drive(
        [vary(asked, config.generation, objects, synthesis.seed)],
        lambda requests: model.complete(requests, synthesis.sampling, "samples"),
    )
    context.check()
    selection = select(samples, real, _earlier(context), measured_pairs(corpus))
    return _publish(selection, config.generation, len(wanted), context)


def _earlier(context: StageContext) -> list[Pair]:
    """Return the accepted pairs of all earlier generations."""
    roles = sorted(role for role in context.inputs if role.startswith("extra-"))
    return [pair for role in roles for pair in read_pairs(context.inputs[role] / "pairs" / "train.parquet")]


def _publish(selection: Selection, generation: int, prompts: int, context: StageContext) -> StageResult:
    stats = {"generation": generation, "prompts": prompts, **selection.stats()}
    write_pairs(context.output / "pairs" / "train.parquet", selection.pairs)
    write_json(context.output / "stats.json", stats)
    write_json(context.output / "samples.json", selection.shown())
    figures = {name: float(stats[name]) for name in ("raw", "accepted", "acceptance_rate", "duplicate_share")}
    rejected = {f"rejected/{reason}": float(count) for reason, count in stats["rejected"].items()}
    return StageResult(metrics={**figures, **rejected})
