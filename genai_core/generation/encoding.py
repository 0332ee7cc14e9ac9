"""Texts -> vectors, by the model that also writes: the encoding half of GRIT (arXiv 2402.09906).

    e = mean of h_t over the text's tokens, of length 1;   so that a dot product is a cosine

Header, attention and pooling are those of the training, which its model folder tells in embedding.json. Texts of like length
share a pass; what fills it up is a segment of its own, so that a text's vector does not know its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genai_core.config.objectives import Contrastive
from genai_core.data.retrieval_rows import EMBEDDING, ROW_TOKENS, embedding_header
from genai_core.data.tokenizer import encode_documents, load_tokenizer
from genai_core.errors import ModelError
from genai_core.generation.prompts import longest_row
from genai_core.models.backbone import causal_model, hidden_states, see_segments
from genai_core.models.load import load_model
from genai_core.objectives.contrastive import pool_segments

BATCH_TOKENS = 4096


class Encoder:
    """Vectors of queries and documents. Not thread safe."""

    def __init__(
        self, model: Any, tokenizer: Any, how: Contrastive, batch_tokens: int = BATCH_TOKENS, longest: int = 0
    ) -> None:
        """Keep the model.

        Args:
            model: a transformers causal language model in eval mode.
            tokenizer: its tokenizer.
            how: as it was trained.
            batch_tokens: most tokens in one pass, unless a single text is longer.
            longest: tokens that a text is cut to, its header included; 0 = what the model holds.
        """
        self.model = model
        self._tokenizer = tokenizer
        self._how = how
        self._batch_tokens = batch_tokens
        self._longest = longest or longest_row(model.config) or 1 << 20

    @staticmethod
    def open(path: Path) -> Encoder:
        """Return the encoder of a published model.

        Raises:
            ModelError: the model was not trained to embed, or cannot be loaded.
        """
        told = path / EMBEDDING
        if not told.is_file():
            raise ModelError(
                f"The model in {path} was not trained to embed: it has no {EMBEDDING}. Train with objective kind 'contrastive', "
                "alone or in a mixture."
            )
        settings = json.loads(told.read_text(encoding="utf-8"))
        longest = settings.pop(ROW_TOKENS)  # positions behind it have never been trained
        return Encoder(load_model(path), load_tokenizer(path), Contrastive.model_validate(settings), longest=longest)

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of queries, (N, D) float32 of length 1; an empty text has the zero vector."""
        return self._encode(texts, self._header("query"))

    def documents(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of documents, (N, D) float32 of length 1; an empty text has the zero vector."""
        return self._encode(texts, self._header("document"))

    def encode_one(self, text: str, role: Literal["query", "document"]) -> tuple[list[int], int]:
        """Return the ids of a text with its header, cut to what the model holds, and where the text begins."""
        header = self._header(role)
        [ids] = encode_documents(self._tokenizer, [text.strip()])
        return [*header, *ids[: self._longest - len(header)]], len(header)

    @torch.inference_mode()
    def vector_of(self, ids: Sequence[int], start: int, cache: Any) -> np.ndarray:
        """Return the vector of one text, (D,) float32; its keys and values are left in a transformers cache.

        Args:
            ids: header and text.
            start: where the text begins.
            cache: an empty one.
        """
        told = torch.tensor([list(ids)], device=self.model.device)
        places = torch.arange(len(ids), device=told.device)[None]
        mask = torch.ones(1, 1, len(ids), len(ids), dtype=torch.bool, device=told.device)
        hidden = causal_model(self.model).get_decoder()(
            input_ids=told,
            position_ids=places,
            attention_mask=mask if self._how.attention == "bidirectional" else None,
            past_key_values=cache,
            use_cache=True,
        )[0]
        pooled = pool_segments(hidden, torch.zeros_like(told), places >= start, 1, self._how.pooling)[0, 0]
        vector: np.ndarray = F.normalize(pooled, dim=-1).float().cpu().numpy()
        return vector

    def _header(self, role: Literal["query", "document"]) -> list[int]:
        told = self._how.query_instruction if role == "query" else self._how.document_instruction
        return embedding_header(self._tokenizer, told)

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str], header: list[int]) -> np.ndarray:
        room = self._longest - len(header)
        ids = [text[:room] for text in encode_documents(self._tokenizer, [text.strip() for text in texts])]
        order = sorted((index for index in range(len(ids)) if ids[index]), key=lambda index: -len(ids[index]))
        vectors = np.zeros((len(texts), self.model.config.get_text_config().hidden_size), dtype=np.float32)
        while order:
            width = len(header) + len(ids[order[0]])
            size = max(1, self._batch_tokens // width)
            part, order = order[:size], order[size:]
            vectors[part] = self._pass(header, [ids[index] for index in part], width).float().cpu().numpy()
        return vectors

    def _pass(self, header: list[int], texts: Sequence[list[int]], width: int) -> Tensor:
        """Return the vectors of texts, (B, D), from one pass of `width` tokens a row."""
        device = self.model.device
        filled = [[*header, *text, *[0] * (width - len(header) - len(text))] for text in texts]
        ends = torch.tensor([len(header) + len(text) for text in texts], device=device)[:, None]
        places = torch.arange(width, device=device)[None]
        segments = (places >= ends).long()  # (B, T): 0 the text, 1 what fills up
        seen = see_segments(segments) if self._how.attention == "bidirectional" else None
        positions = torch.where(segments > 0, places - ends, places)
        hidden = hidden_states(self.model, torch.tensor(filled, device=device), positions, seen)
        pooled = (places >= len(header)) & (segments == 0)
        return F.normalize(pool_segments(hidden, segments, pooled, 1, self._how.pooling)[:, 0], dim=-1)
