"""What a worker runs to measure a diffusion model on given text: what `generation.scoring` is for a causal one.

The same rows and windows; instead of the loss a bound of it, with the standard error of its Monte Carlo estimate. What is
drawn for a row depends on its id alone. An answer is measured with the end marks that it was filled up with in training:
what is bounded then is less likely than the answer, so it is a bound of the answer's loss too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genai_core.config.generation import DiffusionWriter
from genai_core.data.answer_fill import fill_answer
from genai_core.data.masking import Vocabulary
from genai_core.data.templates import end_of_turn_id, render_example
from genai_core.data.tokenizer import document_end_id, encode_documents
from genai_core.errors import ModelError
from genai_core.evaluation.diffusion_bound import diffusion_bound
from genai_core.generation.prompts import longest_row
from genai_core.generation.scoring import MAX_WINDOW, cut_windows
from genai_core.generation.worker import load_shard_model
from genai_core.models.diffusion_folder import read_writer


def bound_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return the bound of every document or answer, in row order; see `bound_rows`.

    Args:
        arguments: "model": the folder of a diffusion model; "samples": draws for each window; "threads": 0 = as it is.
        rows: {"row_id", "text"} or {"row_id", "prompt", "completion"}.
    """
    model, tokenizer = load_shard_model(arguments)
    writer = read_writer(Path(arguments["model"]))
    assert writer is not None, "asked of diffusion models only"
    return bound_rows(model, tokenizer, writer, rows, arguments["samples"])


def bound_rows(
    model: Any, tokenizer: Any, writer: DiffusionWriter, rows: Sequence[dict[str, Any]], samples: int
) -> list[dict[str, Any]]:
    """Return {"row_id", "nll", "nll_error", "n_tokens"} of each row, in nats, and "n_bytes" of a document.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        writer: how it was trained to write.
        rows: documents or answers, as `scoring.score` takes them.
        samples: draws for each window.

    Raises:
        ModelError: prompt and answer together are longer than the model.
    """
    longest = longest_row(model.config) or writer.row_tokens
    mask_id, offset = Vocabulary.of(tokenizer, writer.mask_token).mask_id, 0 if writer.reads == "own" else 1
    found = []
    for row in rows:
        if "text" in row:
            ids = [document_end_id(tokenizer), *next(encode_documents(tokenizer, [row["text"]]))]
            window = min(longest, writer.row_tokens, MAX_WINDOW)
            pieces = [(piece.ids, piece.start) for piece in cut_windows(0, ids, window)] if len(ids) > 1 else []
            told = {"n_tokens": len(ids) - 1, "n_bytes": len(row["text"].encode())}
        else:
            ids, loss_mask = render_example(tokenizer, row["prompt"], row["completion"])
            if len(ids) > longest:
                raise ModelError(
                    f"Row {row['row_id']!r}: prompt and answer have {len(ids)} tokens and the model holds {longest}. "
                    "Leave the row out or use a model with a longer context."
                )
            start, end = len(ids) - sum(loss_mask), end_of_turn_id(tokenizer) or document_end_id(tokenizer)
            pieces = [(fill_answer(ids, loss_mask, end, writer, longest)[0], start)]
            told = {"n_tokens": sum(loss_mask)}
        seed = int.from_bytes(hashlib.sha256(row["row_id"].encode()).digest()[:4], "big")
        bounds = [
            diffusion_bound(
                model,
                piece,
                mask_id,
                offset=offset,
                block_length=writer.block_length,
                start=start,
                samples=samples,
                seed=seed + number,
            )
            for number, (piece, start) in enumerate(pieces)
        ]
        nll = sum(bound.nats for bound in bounds)
        error = math.sqrt(sum(bound.standard_error**2 for bound in bounds))
        found.append({"row_id": row["row_id"], "nll": nll, "nll_error": error, **told})
    return found
