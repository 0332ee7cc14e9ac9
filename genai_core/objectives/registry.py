"""From an objective's config to the weighted objectives that the engine runs in one step."""

from __future__ import annotations

from typing import Any, Literal, assert_never

from genai_core.config.masking import Masking
from genai_core.config.objectives import (
    BlockDiffusion,
    CausalLm,
    Contrastive,
    Distillation,
    HybridLm,
    LinkedLm,
    MaskedDiffusion,
    MaskedLm,
    Mixture,
    PrefixLm,
    Reads,
    Ul2,
)
from genai_core.config.objectives import Objective as ObjectiveConfig
from genai_core.data.masking import Masker, Vocabulary
from genai_core.data.tokenizer import document_end_id, document_start_id
from genai_core.data.ul2_marks import Ul2Marks
from genai_core.errors import ConfigError
from genai_core.objectives.base import Weighted
from genai_core.objectives.block_diffusion import BlockDiffusionObjective
from genai_core.objectives.causal_lm import CausalLmObjective
from genai_core.objectives.contrastive import ContrastiveObjective
from genai_core.objectives.distillation import DistillationObjective, Divergence
from genai_core.objectives.linked_lm import LinkedLmObjective
from genai_core.objectives.masked_diffusion import MaskedDiffusionObjective
from genai_core.objectives.masked_lm import MaskedLmObjective
from genai_core.objectives.prefix_lm import PrefixLmObjective
from genai_core.objectives.ul2 import Denoiser, Ul2Objective


def build_objectives(config: ObjectiveConfig, tokenizer: Any = None) -> tuple[Weighted, ...]:
    """Return the objectives of a training run with their weights.

    Args:
        config: what is learned.
        tokenizer: for objectives that hide tokens.

    Raises:
        ConfigError: the tokenizer has nothing that could stand for a hidden token.
    """
    match config:
        case CausalLm():
            return (Weighted(CausalLmObjective(), 1.0),)
        case PrefixLm():
            return (Weighted(PrefixLmObjective(config.prefix), 1.0),)
        case MaskedLm():
            return (Weighted(_masked(config.masking, config.mask_token, config.reads, tokenizer), 1.0),)
        case LinkedLm():
            masker = Masker(config.masking, _vocabulary(tokenizer, config.mask_token))
            linked = LinkedLmObjective(
                masker,
                _offset(config.reads),
                start_id=document_start_id(tokenizer),
                end_id=document_end_id(tokenizer),
                relation_weight=config.relation_weight,
            )
            return (Weighted(linked, 1.0),)
        case HybridLm():
            # each term is a mean over its own tokens, so the weights are those of the terms, whatever the numbers of tokens
            share = config.masked_share
            masked = _masked(config.masking, config.mask_token, "previous", tokenizer)
            return (
                Weighted(masked, share, rows=(0.0, share)),
                Weighted(CausalLmObjective(), 1 - share, rows=(share, 1.0)),
            )
        case MaskedDiffusion():
            mask_id = _vocabulary(tokenizer, config.mask_token).mask_id
            return (Weighted(MaskedDiffusionObjective(mask_id, _offset(config.reads), config.anneal), 1.0),)
        case BlockDiffusion():
            mask_id = _vocabulary(tokenizer, config.mask_token).mask_id
            rates = (config.least_masked, config.most_masked)
            block = BlockDiffusionObjective(mask_id, config.block_length, _offset(config.reads), rates)
            return (Weighted(block, 1.0),)
        case Ul2():
            return (Weighted(_ul2(config, tokenizer), 1.0),)
        case Mixture():
            return _mixture(config, tokenizer)
        case Distillation():
            divergence = Divergence(config.divergence, config.temperature, config.beta)
            distilled = Weighted(DistillationObjective(divergence), 1.0)
            labels = (Weighted(CausalLmObjective(), config.label_weight),) if config.label_weight else ()
            return (distilled, *labels)
        case Contrastive():
            embedding = ContrastiveObjective(config.temperature, config.negatives, config.attention, config.pooling)
            return (Weighted(embedding, 1.0),)
        case _:
            assert_never(config)


def _mixture(config: Mixture, tokenizer: Any) -> tuple[Weighted, ...]:
    """Return the terms; shares of rows below 1 lie side by side, in the order of the terms, anew in every phase."""
    names = [dataset.name for dataset in config.datasets]
    found: list[Weighted] = []
    for term in config.terms:
        [one] = build_objectives(term.objective, tokenizer)
        phase = (term.begin, term.end)
        dataset = None if term.dataset is None else names.index(term.dataset)
        low = 0.0
        if term.rows < 1:
            beside = [
                high - low
                for (low, high), (begin, end) in ((it.rows, it.phase) for it in found if it.dataset == dataset)
                if high - low < 1 and begin < term.end and term.begin < end
            ]
            low = sum(beside)
        found.append(
            Weighted(
                one.objective,
                term.weight,
                rows=(low, min(1.0, low + term.rows)),
                phase=phase,
                dataset=dataset,
                suffix=f"_{term.dataset}" if term.dataset else "",
            )
        )
    return tuple(found)


def _ul2(config: Ul2, tokenizer: Any) -> Ul2Objective:
    marks = Ul2Marks.of(tokenizer)
    denoisers = [Denoiser(marks.modes[one.mode], one.share, one.rate, one.mean_span) for one in config.denoisers]
    return Ul2Objective(denoisers, marks.sentinels, marks.pad, config.attention)


def _masked(masking: Masking, mask_token: str, reads: Reads, tokenizer: Any) -> MaskedLmObjective:
    return MaskedLmObjective(Masker(masking, _vocabulary(tokenizer, mask_token)), _offset(reads))


def _offset(reads: Reads) -> Literal[0, 1]:
    return 0 if reads == "own" else 1


def _vocabulary(tokenizer: Any, mask_token: str) -> Vocabulary:
    if tokenizer is None:
        raise ConfigError("This objective hides tokens and needs the tokenizer to know which.")
    return Vocabulary.of(tokenizer, mask_token)
