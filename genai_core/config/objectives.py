"""What a training run learns: the objectives, and mixtures of them over datasets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import (
    Config,
    Fraction,
    LeftOutWhile,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from genai_core.config.generation import DiffusionWriter
from genai_core.config.masking import Masking, SpanUnit
from genai_core.config.model import GivenBase


class CausalLm(Config):
    """Next-token prediction."""

    kind: Literal["causal_lm"] = "causal_lm"


Reads = Literal["own", "previous"]
DatasetName = Literal["text", "pairs", "retrieval"]


class HidesTokens(Config):
    """An objective that shows a mask in the place of some tokens."""

    kind: str
    mask_token: str = Field(
        default="", description="Entry of the tokenizer that stands for what is hidden; '' = its own mask token."
    )


class FindsTokens(HidesTokens):
    """One that finds them again at a place of one's choice."""

    reads: Reads = Field(
        default="own",
        description="Where a hidden token is predicted: at its 'own' place, or, to start from a causal checkpoint, at the 'previous' "
        "one as that does (DiffuLLaMA, Dream).",
    )


class MaskedLm(FindsTokens):
    """Hidden tokens are found again from both sides (BERT, RoBERTa; 'previous': GPT-BERT's and LLM2Vec's MNTP)."""

    kind: Literal["masked_lm"] = "masked_lm"
    masking: Masking = Field(default=Masking(), description="Which tokens are hidden.")


Relation = Literal["contiguous", "random", "linked"]
RELATIONS: tuple[Relation, ...] = ("contiguous", "random", "linked")


class LinkedLm(FindsTokens):
    """Masked language modelling over pairs of texts, and which relation they stand in (LinkBERT, arXiv 2203.15827)."""

    kind: Literal["linked_lm"] = "linked_lm"
    masking: Masking = Field(default=Masking(), description="Which tokens are hidden.")
    relations: tuple[Relation, ...] = Field(
        default=RELATIONS,
        min_length=1,
        description="What may stand behind a text: what follows it, anything, what it links to. Without 'linked' this is BERT.",
    )
    relation_weight: NonNegativeFloat = Field(
        default=1.0, description="Weight of finding the relation; that of the hidden tokens is 1."
    )
    links: Literal["own", "similar"] = Field(
        default="own",
        description="The documents' 'own' links (hyperlinks, cross-references, titles named), or the most 'similar' by TF-IDF.",
    )
    neighbours: PositiveInt = Field(default=5, description="Similar documents that each is linked to.")
    diverse: bool = Field(
        default=True, description="Draw a document less often by each link the more links lead to it (1 / in-degree)."
    )
    draws: PositiveInt = Field(default=4, description="Pairs that each piece of text is the first of.")

    def key_revision(self) -> int:
        """Return 1: where documents are cut has changed (data/linked_rows)."""
        return 1


class HybridLm(HidesTokens):
    """Masked next-token prediction on some rows, causal prediction on the others, with one head (GPT-BERT)."""

    kind: Literal["hybrid_lm"] = "hybrid_lm"
    masked_share: Fraction = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Share of the rows that are masked, and the weight of their mean loss; the others' is 1 less it.",
    )
    masking: Masking = Field(
        default=Masking(rate=0.3, final_rate=0.15, unit=SpanUnit()), description="Which tokens are hidden."
    )


class MaskedDiffusion(FindsTokens):
    """Absorbing-state diffusion: masked language modelling at all rates, a bound on the likelihood (MDLM, LLaDA)."""

    kind: Literal["masked_diffusion"] = "masked_diffusion"
    answer_length: Annotated[NonNegativeInt, LeftOutWhile(48)] = Field(
        default=48,
        description="Tokens that the answer of an instruction pair is filled up to with its end mark, as many as evaluation then "
        "writes: so the model learns where answers end. 0 = not filled up.",
    )
    anneal: Annotated[Fraction, LeftOutWhile(0.0)] = Field(
        default=0.0,
        description="Share of the steps over which attention opens from causal to both sides, for a causal checkpoint; 0 = open.",
    )


class BlockDiffusion(FindsTokens):
    """From left to right over blocks of tokens, masked diffusion inside a block (BD3-LM)."""

    kind: Literal["block_diffusion"] = "block_diffusion"
    block_length: PositiveInt = Field(
        default=16, description="Tokens in a block; 1 is next-token prediction, the length of a row masked diffusion."
    )
    least_masked: Fraction = Field(
        default=0.0, description="Least share of a block's tokens that is masked in training (clipped schedule)."
    )
    most_masked: Fraction = Field(
        default=1.0, description="Largest share of a block's tokens that is masked in training (clipped schedule)."
    )

    @model_validator(mode="after")
    def _shares_in_order(self) -> BlockDiffusion:
        if self.least_masked > self.most_masked:
            raise ValueError(
                f"least_masked={self.least_masked:g} is above most_masked={self.most_masked:g}. Lower one or raise the other."
            )
        return self


class PrefixLm(Config):
    """The beginning of a text is read from both sides, the rest is predicted from left to right."""

    kind: Literal["prefix_lm"] = "prefix_lm"
    prefix: Literal["random", "prompt"] = Field(
        default="random",
        description="'random': up to a place drawn anew at each visit; 'prompt': what precedes the first trained token.",
    )


class Distillation(Config):
    """The student learns a teacher's whole distribution at every token (Hinton et al. 2015; GKD, Agarwal et al. 2024)."""

    kind: Literal["distillation"] = "distillation"
    teacher: GivenBase = Field(
        description="The model that is learned from. It may have another size, but must have the tokenizer of the data."
    )
    divergence: Literal["forward", "reverse", "jensen_shannon"] = Field(
        default="forward",
        description="'forward' KL(teacher, student) covers all that the teacher finds possible; 'reverse' keeps to what it finds "
        "likely; 'jensen_shannon' lies between them.",
    )
    beta: Fraction = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="The teacher's share of the mixture that 'jensen_shannon' compares both with. The loss shrinks towards 0 and 1.",
    )
    temperature: PositiveFloat = Field(
        default=1.0, description="Both models' logits are divided by it; above 1, unlikely tokens count for more."
    )
    label_weight: NonNegativeFloat = Field(
        default=0.0, description="Weight of plain cross-entropy on the text's own tokens; that of the divergence is 1."
    )


class Ul2Denoiser(Config):
    """One way of leaving out parts of a text."""

    mode: Literal["nlu", "nlg", "s2s"] = Field(description="Which mode token stands before the text.")
    rate: Fraction = Field(
        default=0.0, lt=1, description="Share of the tokens that is left out; 0 = the rest from a random place on."
    )
    mean_span: PositiveFloat = Field(default=1.0, description="Mean length of what is left out at a place, in tokens.")
    share: PositiveFloat = Field(default=1.0, description="How often it is drawn, relative to the others.")


class Ul2(Config):
    """A mixture of denoisers: spans or the rest of a text are left out and written behind it (UL2)."""

    kind: Literal["ul2"] = "ul2"
    denoisers: tuple[Ul2Denoiser, ...] = Field(
        default=(
            Ul2Denoiser(mode="nlu", rate=0.15, mean_span=3),
            Ul2Denoiser(mode="nlu", rate=0.15, mean_span=8),
            Ul2Denoiser(mode="nlg", rate=0.5, mean_span=3),
            Ul2Denoiser(mode="nlg", rate=0.5, mean_span=8),
            Ul2Denoiser(mode="nlg", rate=0.15, mean_span=64),
            Ul2Denoiser(mode="nlg", rate=0.5, mean_span=64),
            Ul2Denoiser(mode="s2s"),
        ),
        min_length=1,
        description="What is drawn from for each text; the default is the paper's R, X and S, all as often.",
    )
    attention: Literal["prefix", "causal"] = Field(
        default="prefix", description="Whether what stands before the left-out parts is read from both sides."
    )


class Contrastive(Config):
    """Queries find their documents among all of the step by the similarity of their vectors (GRIT, InfoNCE)."""

    kind: Literal["contrastive"] = "contrastive"
    temperature: PositiveFloat = Field(default=0.02, description="Similarities are divided by it.")
    negatives: NonNegativeInt = Field(
        default=1, description="Hard negatives of a row that are looked at, beside the other rows' documents."
    )
    attention: Literal["bidirectional", "causal"] = Field(
        default="bidirectional",
        description="What a token of a text to embed sees; 'causal' keeps documents' key-value states usable for generation.",
    )
    pooling: Literal["mean", "weighted_mean"] = Field(
        default="mean",
        description="A text's vector is the mean of its hidden states; 'weighted_mean' counts later ones more, for causal attention.",
    )
    query_instruction: str = Field(
        default="", description="What queries are embedded for, told before each; '' = nothing."
    )
    document_instruction: str = Field(default="", description="The same before each document; usually ''.")


class MixtureTerm(Config):
    """One objective of several that are learned together."""

    objective: Annotated[
        CausalLm | PrefixLm | MaskedLm | MaskedDiffusion | BlockDiffusion | Contrastive, Field(discriminator="kind")
    ] = Field(default=CausalLm(), description="What is learned.")
    weight: NonNegativeFloat = Field(
        default=1.0, description="Weight of the term's mean (over its own tokens) in the loss."
    )
    dataset: Annotated[DatasetName | None, LeftOutWhile(None)] = Field(
        default=None, description="The one of `datasets` whose rows it is computed on; none = the rows of all."
    )
    rows: Fraction = Field(
        default=1.0,
        gt=0,
        description="Share of each step's rows (of its dataset's, if it has one) that it is computed on; 1 = all. Shares below 1 "
        "do not overlap.",
    )
    begin: Fraction = Field(default=0.0, description="Part of the training's steps after which it begins to count.")
    end: Fraction = Field(default=1.0, description="Part of the training's steps after which it no longer counts.")


class MixedDataset(Config):
    """One of several datasets that a training's rows come from."""

    name: DatasetName = Field(
        description="'text': the corpus's documents; 'pairs': its instruction pairs, of which the answers are learned; 'retrieval': "
        "what a document is about and the document, which 'contrastive' learns from."
    )
    rows: Fraction = Field(gt=0, description="Share of every step's rows that come from it; all shares sum to 1.")


class Mixture(Config):
    """Several objectives in one run: weighted together, on shares of the rows, or one after the other (AntLM)."""

    kind: Literal["mixture"] = "mixture"
    terms: tuple[MixtureTerm, ...] = Field(min_length=1, description="The objectives.")
    datasets: Annotated[tuple[MixedDataset, ...], LeftOutWhile(())] = Field(
        default=(),
        description="The datasets that every step's rows come from; none = the rows that the stage has anyway.",
    )

    def key_revision(self) -> int:
        """Return 1 where three or more datasets are mixed: which step has how many rows of each has changed (data/mixing)."""
        return int(len(self.datasets) > 2)

    @model_validator(mode="after")
    def _terms_fit(self) -> Mixture:
        if len({term.objective for term in self.terms if isinstance(term.objective, Contrastive)}) > 1:
            raise ValueError(
                "two terms of kind 'contrastive' differ, but a model embeds in one way and their rows are made once. Give both the "
                "same settings."
            )
        names = [dataset.name for dataset in self.datasets]
        if len(set(names)) < len(names):
            raise ValueError(f"datasets are named twice: {', '.join(names)}. Make them one.")
        total = sum(dataset.rows for dataset in self.datasets)
        if self.datasets and abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the datasets are {total:g} together. They must sum to 1.")
        for term in self.terms:
            if term.dataset is not None and term.dataset not in names:
                raise ValueError(
                    f"a term of kind {term.objective.kind!r} is computed on dataset {term.dataset!r}, but `datasets` has "
                    f"{', '.join(names) or 'none'}. Add it there with a share of the rows."
                )
        read = {term.dataset for term in self.terms}
        for idle in () if None in read else (name for name in names if name not in read):
            raise ValueError(
                f"dataset {idle!r} has a share of every step's rows, but no term is computed on it. Leave it out, or give a term "
                "its name (with weight 0, if it shall only be measured)."
            )
        for dataset in read:
            shares = sum(term.rows for term in self.terms if term.rows < 1 and term.dataset == dataset)
            if shares > 1 + 1e-9:
                raise ValueError(f"the shares of rows below 1 are {shares:g} together. Lower some, to 1 at most.")
        for term in self.terms:
            if term.begin >= term.end:
                raise ValueError(f"a term begins at {term.begin:g} and ends at {term.end:g}: it would never count.")
        borders = sorted({0.0, *(term.begin for term in self.terms), *(term.end for term in self.terms)})
        for at in (border for border in borders if border < 1):
            active = [term for term in self.terms if term.begin <= at < term.end]
            if not active:
                raise ValueError(f"from {at:g} of the training on no term counts. Let one begin there, or end later.")
            kinds = [(term.objective.kind, getattr(term.objective, "reads", ""), term.dataset) for term in active]
            if len(set(kinds)) < len(kinds):
                raise ValueError(
                    f"two terms of kind {active[0].objective.kind!r} count at {at:g} of the training. Make them one, or let "
                    "one begin where the other ends."
                )
        return self


Objective = Annotated[
    CausalLm
    | PrefixLm
    | MaskedLm
    | LinkedLm
    | HybridLm
    | MaskedDiffusion
    | BlockDiffusion
    | Ul2
    | Mixture
    | Contrastive
    | Distillation,
    Field(discriminator="kind"),
]


def parts_of(objective: Objective) -> tuple[Config, ...]:
    """Return the objectives of a mixture, else the objective alone."""
    return tuple(term.objective for term in objective.terms) if isinstance(objective, Mixture) else (objective,)


def kinds_of(objective: Objective) -> tuple[tuple[str, DatasetName | None], ...]:
    """Return the kind of each objective of a mixture and the dataset that it is computed on, None if on all."""
    if isinstance(objective, Mixture):
        return tuple((term.objective.kind, term.dataset) for term in objective.terms)
    return ((objective.kind, None),)


def embedding_of(objective: Objective) -> Contrastive | None:
    """Return how an objective learns to embed, None if it does not."""
    return next((part for part in parts_of(objective) if isinstance(part, Contrastive)), None)


def mixed_datasets(objective: Objective) -> tuple[MixedDataset, ...]:
    """Return the datasets that an objective's rows come from; none where they are those that the stage has anyway."""
    return objective.datasets if isinstance(objective, Mixture) else ()


def ends_causal(objective: Objective) -> bool:
    """Return whether a model that was trained with it last writes from left to right."""
    if isinstance(objective, Mixture):
        return any(isinstance(term.objective, CausalLm) and term.end == 1 for term in objective.terms)
    return not isinstance(objective, (MaskedLm, LinkedLm, MaskedDiffusion, BlockDiffusion, Contrastive))


def needs_decoder(objective: Objective) -> bool:
    """Return whether some part of it is learned with decoders only: it predicts from left to right, or embeds."""
    return any(not isinstance(part, (MaskedLm, LinkedLm, MaskedDiffusion)) for part in parts_of(objective))


def writer_of(objective: Objective, row_tokens: int) -> DiffusionWriter | None:
    """Return how a model that was trained with it last writes, if not from left to right, token by token.

    Args:
        objective: of the training.
        row_tokens: of its rows.
    """
    last = [objective]
    if isinstance(objective, Mixture):
        last = [term.objective for term in objective.terms if term.end == 1]
    if any(isinstance(one, (CausalLm, HybridLm, PrefixLm, Ul2)) for one in last):
        return None
    for one in last:
        if isinstance(one, MaskedDiffusion):
            more = {"answer_length": one.answer_length}
        elif isinstance(one, BlockDiffusion):
            more = {"block_length": one.block_length}
        else:
            continue
        return DiffusionWriter(mask_token=one.mask_token, reads=one.reads, row_tokens=row_tokens, **more)
    return None
