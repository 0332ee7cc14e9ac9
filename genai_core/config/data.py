"""What text goes in, and how it becomes documents, instruction pairs, tokens and packed rows."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from genai_core.config.base import (
    Config,
    Fraction,
    LeftOutWhile,
    License,
    Licensed,
    Location,
    NonNegativeInt,
    PositiveInt,
)
from genai_core.config.retrieval import NoRetrieval, Retrieval

PYTHON_LICENSE = "PSF-2.0"


def known_encoding(name: str) -> str:
    """Return the name if Python can decode it. Raises ValueError, as a validator does."""
    try:
        codecs.lookup(name)
    except LookupError:
        raise ValueError(
            f"{name!r} is no encoding that Python knows. Examples: utf-8, cp1252 (Windows), latin-1, shift_jis."
        ) from None
    return name


Encoding = Annotated[str, AfterValidator(known_encoding), LeftOutWhile("utf-8")]
ENCODING = "Encoding of the files: utf-8, cp1252 (Windows, Western Europe), latin-1, ..."


def one_or_several_names(value: object) -> object:
    """Return the value if it is a name or a list of names. Raises ValueError, as a validator does."""
    if isinstance(value, str) or (
        isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value)
    ):
        return value
    raise ValueError(f"{value!r} is neither a field's name nor a list of names, such as [instruction, input, output].")


TextField = Annotated[str | tuple[str, ...], BeforeValidator(one_or_several_names)]
"""One field, or several whose texts are joined by blank lines; a.b and a.0 reach into objects and lists."""

TEXT_FIELD = (
    "Field that holds the document's text; or a list of fields, joined by blank lines, empty ones left out. "
    "'a.b' reaches into an object, 'a.0' into a list."
)
RowPassages = Annotated[NonNegativeInt, LeftOutWhile(0)]
ROW_PASSAGES = (
    "Cut longer texts into passages of about so many words, which stay on one side of the split; 0 = whole texts."
)
GROUP_FIELD = "Field whose equal values stay on one side of the split; '' = row."


class PydocsSource(Licensed):
    """The documentation of Python's own standard library: on every machine, verifiable, no download."""

    kind: Literal["pydocs"] = "pydocs"
    max_modules: NonNegativeInt = Field(default=0, description="Use only the first so many modules by name; 0 = all.")
    topics: bool = Field(default=True, description="Also read the language reference (pydoc_data.topics).")
    license: License = Field(default=PYTHON_LICENSE, description="Licence of the text: Python's own.")


class TextSource(Licensed):
    """Plain text files; what a document is can be chosen."""

    kind: Literal["text"] = "text"
    path: Location = Field(
        description="A file, a folder (searched for *.txt, also packed: .gz, .bz2, .xz) or a glob pattern."
    )
    document: Literal["file", "paragraph", "passage"] = Field(
        default="file",
        description="What one document is: a file; a block between blank lines; or, for books and other long files, a "
        "passage of neighbouring blocks of about passage_words words.",
    )
    passage_words: Annotated[PositiveInt, LeftOutWhile(400)] = Field(
        default=400, description="Words of a passage (document: passage)."
    )
    encoding: Encoding = Field(default="utf-8", description=ENCODING)


class MarkdownSource(Licensed):
    """Markdown files; each section below a heading is a document, links between them are kept."""

    kind: Literal["markdown"] = "markdown"
    path: Location = Field(description="A file, a folder (searched for *.md, *.markdown) or a glob pattern.")
    encoding: Encoding = Field(default="utf-8", description=ENCODING)


class JsonlSource(Licensed):
    """One JSON object a line, or a file that is one list of objects; also packed: .gz, .bz2, .xz."""

    kind: Literal["jsonl"] = "jsonl"
    path: Location = Field(
        description="A file, a folder (searched for *.jsonl, *.ndjson, also packed) or a glob pattern."
    )
    text_field: TextField = Field(default="text", description=TEXT_FIELD)
    group_field: str = Field(default="", description=GROUP_FIELD)
    passage_words: RowPassages = Field(default=0, description=ROW_PASSAGES)
    encoding: Encoding = Field(default="utf-8", description=ENCODING)


class CsvSource(Licensed):
    """A table with a header line; also packed: .gz, .bz2, .xz."""

    kind: Literal["csv"] = "csv"
    path: Location = Field(description="A file, a folder (searched for *.csv, *.tsv, also packed) or a glob pattern.")
    text_field: TextField = Field(default="text", description=TEXT_FIELD)
    group_field: str = Field(default="", description=GROUP_FIELD)
    passage_words: RowPassages = Field(default=0, description=ROW_PASSAGES)
    delimiter: Annotated[str, LeftOutWhile(",")] = Field(
        default=",", min_length=1, max_length=1, description='Character between two columns; for tabs "\\t".'
    )
    encoding: Encoding = Field(default="utf-8", description=ENCODING)


class ParquetSource(Licensed):
    """Parquet files."""

    kind: Literal["parquet"] = "parquet"
    path: Location = Field(description="A file, a folder (searched for *.parquet) or a glob pattern.")
    text_field: TextField = Field(default="text", description=TEXT_FIELD)
    group_field: str = Field(default="", description=GROUP_FIELD)
    passage_words: RowPassages = Field(default=0, description=ROW_PASSAGES)


class DatasetsSource(Licensed):
    """A dataset of the `datasets` library: a hub id or a folder written by `save_to_disk`."""

    kind: Literal["datasets"] = "datasets"
    path: Location = Field(description="Hub id such as 'owner/name', or a local folder.")
    split: str = Field(default="train", description="Split to read.")
    revision: str = Field(default="", description="Commit of the hub dataset; '' resolves the newest at the start.")
    text_field: TextField = Field(default="text", description=TEXT_FIELD)
    group_field: str = Field(default="", description=GROUP_FIELD)
    passage_words: RowPassages = Field(default=0, description=ROW_PASSAGES)


class S3Source(Licensed):
    """Text, Markdown, JSONL, CSV or Parquet objects below an S3 prefix, read as the format says."""

    kind: Literal["s3"] = "s3"
    path: Location = Field(description="Prefix of the objects, as s3://bucket/prefix; without credentials.")
    format: Literal["text", "markdown", "jsonl", "csv", "parquet"] = Field(description="How the objects are written.")
    text_field: TextField = Field(default="text", description=TEXT_FIELD)
    group_field: str = Field(default="", description=GROUP_FIELD)
    passage_words: RowPassages = Field(default=0, description=ROW_PASSAGES)


Source = Annotated[
    PydocsSource | TextSource | MarkdownSource | JsonlSource | CsvSource | ParquetSource | DatasetsSource | S3Source,
    Field(discriminator="kind"),
]


class CleaningConfig(Config):
    """Normalisation and masking of every document, before anything is compared or counted."""

    fix_text: bool = Field(default=True, description="Repair mojibake and odd Unicode with ftfy.")
    mask_pii: bool = Field(default=True, description="Replace e-mail addresses, phone and card numbers, IBANs and IPs.")


class DedupConfig(Config):
    """Exact and near duplicates. The first document by (source order, id) survives."""

    near: bool = Field(default=True, description="Also remove near duplicates (MinHash LSH, verified by Jaccard).")
    jaccard: Fraction = Field(
        default=0.8,
        description="Near duplicates: documents that share at least this much of their word 5-shingles (Jaccard).",
    )
    permutations: PositiveInt = Field(default=128, description="MinHash permutations; more is finer and slower.")


class QualityConfig(Config):
    """Rules that drop a document, each counted by its reason."""

    min_words: NonNegativeInt = Field(default=5, description="Fewer words than this: dropped as too_short.")
    max_words: PositiveInt = Field(default=200_000, description="More words than this: dropped as too_long.")
    max_symbol_ratio: Fraction = Field(
        default=0.5, description="A larger share of characters that are neither letter nor space: dropped as symbols."
    )
    max_duplicate_lines: Fraction = Field(
        default=0.5, description="A larger share of lines that repeat an earlier line: dropped as duplicate_lines."
    )
    max_word_chars: PositiveInt = Field(
        default=200, description="A longer word, in characters (base64, minified code): dropped as long_word."
    )


class SplitConfig(Config):
    """Held-out text, by document group, so that nothing of a group is on both sides."""

    heldout_fraction: Fraction = Field(
        default=0.05, description="Share of groups for held-out measurement; with sealed_fraction at most 0.5."
    )
    sealed_fraction: Fraction = Field(default=0.05, description="Share of groups that only promotion may open.")
    decontaminate_ngram: PositiveInt = Field(
        default=13,
        description="A training document sharing an n-gram of so many words with an evaluation pair is dropped.",
    )

    @model_validator(mode="after")
    def _something_left_to_train_on(self) -> SplitConfig:
        if self.heldout_fraction + self.sealed_fraction > 0.5:
            raise ValueError(
                f"heldout_fraction {self.heldout_fraction} + sealed_fraction {self.sealed_fraction} leave less than half "
                "for training. Lower one of them."
            )
        return self


class PydocsPairs(Config):
    """Description + documentation -> call (open book), and summary -> name (closed book)."""

    kind: Literal["pydocs"] = "pydocs"
    calls_per_object: PositiveInt = Field(default=2, description="Different calls written for one documented object.")
    names: bool = Field(default=True, description="Also summary -> dotted name, without documentation in the prompt.")


class QuotePairs(Config):
    """Passage + the beginning of one of its sentences -> that sentence: extractive, made from any prose."""

    kind: Literal["quotes"] = "quotes"
    per_document: PositiveInt = Field(default=2, description="Most pairs written for one document.")
    passage_words: PositiveInt = Field(default=80, description="Words of the passage shown in the prompt.")


class FieldPairs(Config):
    """Two fields of a JSONL, CSV, Parquet or datasets source are prompt and answer."""

    kind: Literal["fields"] = "fields"
    prompt_field: str = Field(
        description="Field that holds the prompt; 'a.b' reaches into an object, 'a.0' into a list."
    )
    completion_field: str = Field(description="Field that holds the answer.")
    context_field: str = Field(default="", description="Field appended to the prompt when it is not empty.")
    instruction: Annotated[str, LeftOutWhile("")] = Field(
        default="", description="Words that end every prompt, such as 'Is this review pos or neg?'; '' = none."
    )
    prompt_words: Annotated[NonNegativeInt, LeftOutWhile(0)] = Field(
        default=0,
        description="Words of prompt_field and context_field that are shown, from the beginning; 0 = all. A pair longer "
        "than a row (data.seq_len) is not trained on.",
    )


class ConversationPairs(Config):
    """A field that holds a list of {role, content} (or {from, value}) messages; the last assistant turn is the answer."""

    kind: Literal["conversations"] = "conversations"
    messages_field: str = Field(default="messages", description="Field that holds the list of messages.")


class SymbolPairs(Config):
    """Classification by exemplars whose labels are arbitrary symbols (symbol tuning, Wei et al. 2023, arXiv 2305.08298)."""

    kind: Literal["symbols"] = "symbols"
    text_field: str = Field(
        default="text", description="Field of the text that is classified; of pydocs the summary is."
    )
    label_field: str = Field(
        default="label", description="Field of its class; of pydocs the kind of object, and the module, are."
    )
    dataset_field: str = Field(
        default="", description="Field that says which dataset a row is of; '' = every file is one."
    )
    labels: Literal["symbols", "natural"] = Field(
        default="symbols",
        description="What training exemplars are labelled with: 'symbols', drawn anew for every prompt, or the data's own.",
    )
    categories: tuple[Literal["integers", "combinations", "words"], ...] = Field(
        default=("integers", "combinations", "words"),
        min_length=1,
        description="Kinds of symbols, each as likely; words are made of syllables.",
    )
    min_exemplars: PositiveInt = Field(default=2, description="Least exemplars of each class in a prompt.")
    max_exemplars: PositiveInt = Field(
        default=10,
        description="Most exemplars of each class in a training prompt; their number is drawn anew for each.",
    )
    eval_exemplars: PositiveInt = Field(default=4, description="Exemplars of each class in a held-out prompt.")
    max_classes: Annotated[int, Field(ge=2)] = Field(
        default=4, description="Most classes in one prompt; of a dataset with more, others are drawn for each prompt."
    )
    text_words: PositiveInt = Field(default=40, description="Texts with more words are left out.")
    prompt_words: PositiveInt = Field(
        default=160, description="Exemplars become fewer until a prompt has no more words than this."
    )
    prompts_per_text: PositiveInt = Field(default=1, description="Training prompts that ask for the same text.")
    instruction: str = Field(
        default="Is it {labels}?",
        description="What stands before the exemplars in the held-out settings with an instruction.",
    )

    @model_validator(mode="after")
    def _exemplars_in_order(self) -> SymbolPairs:
        if not self.min_exemplars <= min(self.max_exemplars, self.eval_exemplars):
            raise ValueError(
                f"min_exemplars={self.min_exemplars} is above max_exemplars={self.max_exemplars} or "
                f"eval_exemplars={self.eval_exemplars}. Lower it, or raise them."
            )
        try:
            self.instruction.format(labels="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"instruction={self.instruction!r} may hold {{labels}} and no other braces.") from error
        return self


Pairs = Annotated[PydocsPairs | QuotePairs | FieldPairs | ConversationPairs | SymbolPairs, Field(discriminator="kind")]


class TrainTokenizer(Config):
    """A byte-level BPE tokenizer trained on the training documents."""

    kind: Literal["train"] = "train"
    vocab_size: PositiveInt = Field(
        default=4096,
        le=4_194_304,
        ge=300,
        description="Entries, at least 300: 256 bytes, special tokens, and some words.",
    )
    mask_token: Annotated[bool, LeftOutWhile(False)] = Field(
        default=False, description="Have a mask token, which masked and diffusion objectives need."
    )
    sentinels: Annotated[NonNegativeInt, LeftOutWhile(0)] = Field(
        default=0, description="Have so many sentinels, and the mode tokens beside them, which the objective ul2 needs."
    )


class BaseTokenizer(Config):
    """The tokenizer that comes with the base model."""

    kind: Literal["base"] = "base"


Tokenizer = Annotated[TrainTokenizer | BaseTokenizer, Field(discriminator="kind")]


class AugmentationConfig(Config):
    """Raw text in; documents, links, instruction pairs, a tokenizer and packed rows out."""

    source: Source = Field(default=PydocsSource(), description="Where the text comes from.")
    cleaning: CleaningConfig = Field(default=CleaningConfig(), description="Repair of text, masking of personal data.")
    dedup: DedupConfig = Field(default=DedupConfig(), description="Exact and near duplicates.")
    quality: QualityConfig = Field(default=QualityConfig(), description="Rules that drop documents.")
    split: SplitConfig = Field(default=SplitConfig(), description="Held-out and sealed groups, decontamination.")
    pairs: Pairs = Field(default=PydocsPairs(), description="How instruction pairs are derived.")
    retrieval: Annotated[Retrieval, LeftOutWhile(NoRetrieval())] = Field(
        default=NoRetrieval(),
        description="Ask questions with documents that an index finds, instead of their own; pydocs and fields pairs.",
    )
    tokenizer: Tokenizer = Field(
        default=TrainTokenizer(), description="Trained here, or the one that the base model brings."
    )
    seq_len: PositiveInt = Field(
        default=256, le=16_777_216, description="Tokens in one packed row; the trainings' seq_len must be the same."
    )
    context: Annotated[Literal["document", "group"], LeftOutWhile("document")] = Field(
        default="document",
        description="What a token of a packed row may look back on: its own document, or all documents before it of the "
        "same group (module, file, group_field), as a reader of the whole would.",
    )
    fim_rate: Annotated[Fraction, LeftOutWhile(0.0)] = Field(
        default=0.0,
        description="Share of the training documents that are rearranged for fill-in-the-middle: the model learns to write what "
        "stands between two texts. 0.5 to 0.9 where it is wanted.",
    )
    bad_row_share: Fraction = Field(
        default=0.01, description="Unreadable rows up to this share (of at least 100) are skipped; more is an error."
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of the split and of the written pairs.")

    @model_validator(mode="after")
    def _pairs_fit_the_source(self) -> AugmentationConfig:
        tables = (JsonlSource, CsvSource, ParquetSource, DatasetsSource, S3Source)
        if not isinstance(self.retrieval, NoRetrieval) and not isinstance(self.pairs, (PydocsPairs, FieldPairs)):
            raise ValueError(
                f"retrieval.kind={self.retrieval.kind!r} puts documents to questions that stand alone, and those of "
                f"pairs.kind={self.pairs.kind!r} do not. Use pairs.kind 'pydocs' or 'fields', or retrieval.kind='none'."
            )
        if isinstance(self.pairs, SymbolPairs) and isinstance(self.source, PydocsSource):
            return self
        if isinstance(self.pairs, PydocsPairs) != isinstance(self.source, PydocsSource):
            raise ValueError(
                f"pairs.kind={self.pairs.kind!r} does not go with source.kind={self.source.kind!r}: 'pydocs' pairs need the "
                "'pydocs' source; for your own text choose 'quotes', 'fields' or 'conversations'."
            )
        if not isinstance(self.pairs, QuotePairs) and isinstance(self.source, tables) and self.source.passage_words:
            raise ValueError(
                f"source.passage_words={self.source.passage_words} cuts rows, and pairs.kind={self.pairs.kind!r} would read "
                "the fields of each piece again. Set passage_words to 0, or pairs.kind to 'quotes'."
            )
        if isinstance(self.pairs, (FieldPairs, ConversationPairs, SymbolPairs)) and not isinstance(self.source, tables):
            raise ValueError(
                f"pairs.kind={self.pairs.kind!r} reads fields, but source.kind={self.source.kind!r} has none. "
                "Use a jsonl, csv, parquet or datasets source, or pairs.kind='quotes'."
            )
        return self
