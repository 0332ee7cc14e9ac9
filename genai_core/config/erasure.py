"""Erasing a concept from a model's hidden states: which, how, and what is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from genai_core.config.base import Config, Fraction, Location, NonNegativeInt, PositiveInt
from genai_core.config.data import CsvSource, JsonlSource, ParquetSource


class CorpusConcept(Config):
    """What the corpus itself says of its documents; fitted on its training side, probed on its held-out side."""

    kind: Literal["corpus"] = "corpus"
    field: str = Field(
        default="kind",
        description="Field of a document whose value is its label: 'kind' (pydocs: function, class, method, ...), 'group', or "
        "a field of the table that the corpus was made from.",
    )


class LabelledConcept(Config):
    """Texts and labels of one's own: a table with a column of each."""

    kind: Literal["labelled"] = "labelled"
    path: Location = Field(description="A file, a folder or a glob pattern.")
    format: Literal["jsonl", "csv", "parquet"] = Field(
        default="jsonl", description="How it is written; JSONL and CSV also packed: .gz, .bz2, .xz."
    )
    text_field: str = Field(default="text", description="Field that holds the text.")
    label_field: str = Field(default="label", description="Field that holds the label.")
    group_field: str = Field(
        default="",
        description="Field whose rows of one value stay together, fitted on or held out; '' = each by itself.",
    )
    heldout_fraction: Fraction = Field(default=0.3, description="Share of the groups that probes are measured on only.")

    def source(self) -> JsonlSource | CsvSource | ParquetSource:
        """Return where the rows come from."""
        kinds: dict[str, type[JsonlSource | CsvSource | ParquetSource]] = {
            "jsonl": JsonlSource,
            "csv": CsvSource,
            "parquet": ParquetSource,
        }
        return kinds[self.format](path=self.path, text_field=self.text_field, group_field=self.group_field)


Concept = Annotated[CorpusConcept | LabelledConcept, Field(discriminator="kind")]


class ErasureConfig(Config):
    """Concept erasure in every layer of a model, with probes and the model's loss before and after."""

    concept: Concept = Field(default=CorpusConcept(), description="What is erased.")
    method: Literal["leace", "orthogonal"] = Field(
        default="leace",
        description="'leace' changes the states least; 'orthogonal' projects the differences of the classes' means away.",
    )
    shrinkage: bool = Field(
        default=False,
        description="Pull the covariance of the states towards a multiple of the identity: for fewer tokens than some "
        "multiples of the model's width (leace).",
    )
    final: bool = Field(
        default=False,
        description="Also erase what the head reads, after the last layer: wanted where the states are used as embeddings.",
    )
    max_texts: PositiveInt = Field(default=512, description="Labelled texts that the erasers are fitted on.")
    max_heldout_texts: PositiveInt = Field(
        default=512, description="Further labelled texts that probes are measured on."
    )
    max_tokens: PositiveInt = Field(
        default=128, description="Tokens of a labelled text that are read, from its beginning."
    )
    min_label_texts: PositiveInt = Field(
        default=10, description="A label of fewer texts to fit on is left out, and named in the report."
    )
    probe_hidden: PositiveInt = Field(default=64, description="Units of the non-linear probe's hidden layer.")
    max_documents: PositiveInt = Field(
        default=64, description="Held-out documents of the corpus whose loss is measured, in bits per byte."
    )
    crows_pairs: Location = Field(
        default="", description="CrowS-Pairs as JSONL, to measure stereotypes before and after; '' = not measured."
    )
    gap: Location = Field(
        default="",
        description="GAP as JSONL, to measure the gap between resolving 'she' and 'he' before and after; '' = not measured.",
    )
    gap_split: Literal["", "development", "validation", "test"] = Field(
        default="", description="Rows of GAP that are measured; '' = all. Not those that the concept is fitted on."
    )
    bootstrap_draws: PositiveInt = Field(default=1000, le=1_000_000, description="Resamples of the intervals.")
    seed: NonNegativeInt = Field(
        default=0, description="Seed of the choice of texts, the random control and the probes."
    )
