"""How retrieved documents are put before the questions of a corpus."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config, Fraction, PositiveInt

Layout = Literal["blocks", "tagged", "appended"]
DistractorsFrom = Literal["uniform", "index"]
LAYOUT = (
    "How a prompt is written. 'blocks': documents as paragraphs, then the question; 'tagged': a <DOCUMENT> line each, then "
    "the question (RAFT); 'appended': the question, then the documents (Gorilla)."
)
DOCUMENT_WORDS = "Words of a document that are shown, from the beginning; a pydocs document also shows its signature."


class NoRetrieval(Config):
    """Questions stand alone."""

    kind: Literal["none"] = "none"


class Rat(Config):
    """Retriever-aware training (Gorilla): the right document, what the index finds, or none; the answer stays the same.

    Held-out questions get what the index finds, and are asked again without documents and with the right one.
    """

    kind: Literal["rat"] = "rat"
    documents: PositiveInt = Field(
        default=3, description="Most documents in a prompt; training draws 1 to this many, evaluation shows so many."
    )
    oracle_share: Fraction = Field(
        default=0.4, description="Share of training pairs with the right document, among others that the index finds."
    )
    retrieved_share: Fraction = Field(
        default=0.4, description="Share of training pairs with the best that the index finds, right or wrong."
    )
    copies: PositiveInt = Field(default=1, description="Times each training pair is written, documents drawn anew.")
    document_words: PositiveInt = Field(default=40, description=DOCUMENT_WORDS)
    layout: Layout = Field(default="blocks", description=LAYOUT)

    @model_validator(mode="after")
    def _shares_fit(self) -> Rat:
        if self.oracle_share + self.retrieved_share > 1:
            raise ValueError(
                f"retrieval.oracle_share={self.oracle_share:g} and retrieved_share={self.retrieved_share:g} are more than 1 "
                "together; what is left of 1 is asked without documents. Lower one of them."
            )
        return self

    @property
    def shown(self) -> int:
        """Return the number of documents that evaluation shows."""
        return self.documents


class Raft(Config):
    """RAFT: the right document among distractors, and in some prompts distractors alone; always as many documents.

    Held-out questions get what the index finds, and are asked again without documents and with the right one.
    """

    kind: Literal["raft"] = "raft"
    distractors: PositiveInt = Field(default=3, description="Documents beside the right one; a prompt has one more.")
    oracle_share: Fraction = Field(
        default=0.8, description="Share of training pairs whose prompt holds the right document."
    )
    distractors_from: DistractorsFrom = Field(
        default="uniform",
        description="'uniform': any other document; 'index': the best wrong ones that the index finds, which are harder.",
    )
    copies: PositiveInt = Field(default=1, description="Times each training pair is written, documents drawn anew.")
    document_words: PositiveInt = Field(default=40, description=DOCUMENT_WORDS)
    layout: Layout = Field(default="blocks", description=LAYOUT)

    @property
    def shown(self) -> int:
        """Return the number of documents that evaluation shows."""
        return self.distractors + 1


Retrieval = Annotated[NoRetrieval | Rat | Raft, Field(discriminator="kind")]
