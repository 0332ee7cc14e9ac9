"""Prompts -> completions of a model that fills in masks: all at once, or block by block from left to right.

    masked diffusion   prompt + N masks, filled in an order that is chosen on the way     every pass reads the whole row
    block diffusion    prompt | block | block ...                                         a pass reads one block

A block is filled like the row of a masked model, and then its keys and values are kept: what is seen is what training shows a
noisy block, itself and the clean blocks before it (objectives/block_diffusion.py). Blocks lie at multiples of their length
in the row, so the first one begins with the end of the prompt. Rows of a batch are padded on the left by whole blocks:

    row 0   p p p p | p p p p | p _ _ _ |           its blocks lie under those of the others, at positions of its own
    row 1   . . . . | p p p p | p p p _ |

The answer ends at the first end mark. `logp` is the sum over its tokens of what each had when it was filled in: a draw of the
any-order likelihood, not the likelihood of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from genai_core.config.generation import DiffusionWriter, SamplingConfig, UnmaskingConfig
from genai_core.data.masking import Vocabulary
from genai_core.data.templates import end_token_ids
from genai_core.data.tokenizer import document_end_id
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.masked_model import masked_predictor
from genai_core.generation.prompts import encode_request, longest_row, room_for_answer
from genai_core.generation.types import Completion, Request
from genai_core.generation.unmasking import unmask
from genai_core.models.backbone import causal_model, head_weight
from genai_core.models.diffusion_folder import read_writer

ROWS_AT_ONCE = 64


def open_engine(model: Any, tokenizer: Any, folder: Path) -> GenerationEngine | DiffusionEngine:
    """Return what writes with the model of a folder, as its training has taught it to."""
    writer = read_writer(folder)
    return GenerationEngine(model, tokenizer) if writer is None else DiffusionEngine(model, tokenizer, writer)


@dataclass(frozen=True, slots=True)
class _Written:
    ids: list[int]
    logps: list[float]


class DiffusionEngine:
    """Completions of one model that fills in masks."""

    def __init__(self, model: Any, tokenizer: Any, writer: DiffusionWriter) -> None:
        """Keep the model and tokenizer.

        Args:
            model: trained with a diffusion objective, in eval mode.
            tokenizer: its tokenizer, with chat template.
            writer: how it writes.
        """
        self.model = model
        self.tokenizer = tokenizer
        self._writer = writer
        self._mask_id = Vocabulary.of(tokenizer, writer.mask_token).mask_id
        self._offset = 0 if writer.reads == "own" else 1
        self._ends = {*end_token_ids(tokenizer), document_end_id(tokenizer)}

    @torch.inference_mode()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: SamplingConfig,
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """Return one completion a request, in the order of the requests.

        Args:
            requests: what is asked.
            sampling: temperature, cuts and seed; `unmasking` says how many masks are filled at once and in which order.
            on_token: called with (index of the request, token id) when a batch is written, not for the end token.

        Raises:
            ModelError: a prompt leaves no room for a single token.
        """
        prompts = [encode_request(self.tokenizer, request) for request in requests]
        rooms = [
            room_for_answer(self.model.config, request, ids, sampling)
            for request, ids in zip(requests, prompts, strict=True)
        ]
        found: dict[int, _Written] = {}
        for is_greedy in (False, True):
            own = [index for index, request in enumerate(requests) if request.greedy == is_greedy]
            own.sort(key=lambda index: (len(prompts[index]), index))
            temperature = 0.0 if is_greedy else sampling.temperature
            config = UnmaskingConfig(
                **sampling.unmasking.model_dump(),
                temperature=temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                seed=sampling.seed,
            )
            for start in range(0, len(own), ROWS_AT_ONCE):
                part = own[start : start + ROWS_AT_ONCE]
                names = [requests[index].row_id for index in part]
                write = self._write_blocks if self._writer.block_length else self._write_whole
                written = write([prompts[index] for index in part], [rooms[index] for index in part], names, config)
                for index, one in zip(part, written, strict=True):
                    found[index] = one
        completions = [
            self._completion(request, prompts[index], found[index], rooms[index])
            for index, request in enumerate(requests)
        ]
        if on_token is not None:
            for index, completion in enumerate(completions):
                for token in completion.token_ids:
                    if token not in self._ends:
                        on_token(index, token)
        return completions

    def _write_whole(
        self, prompts: list[list[int]], rooms: list[int], names: list[str], config: UnmaskingConfig
    ) -> list[_Written]:
        """Write all masks of a row as one text; an answer is as long as those of the training were made."""
        device, longest = self.model.device, longest_row(self.model.config)
        counts = rooms
        if size := self._writer.answer_length:
            counts = [size if longest is None else min(size, longest - len(prompt)) for prompt in prompts]
        lengths = torch.tensor([len(prompt) + count for prompt, count in zip(prompts, counts, strict=True)])
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        free = torch.zeros(ids.shape, dtype=torch.bool)
        for row, (prompt, length) in enumerate(zip(prompts, lengths.tolist(), strict=True)):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            free[row, len(prompt) : length] = True
        free = free.to(device)
        ids = ids.to(device).masked_fill(free, self._mask_id)
        predict = masked_predictor(self.model, self._mask_id, lengths, offset=self._offset)
        filled = unmask(predict, ids, self._mask_id, config, names, free)
        return [
            _Written(filled.ids[row, len(prompt) : length].tolist(), filled.logps[row, len(prompt) : length].tolist())
            for row, (prompt, length) in enumerate(zip(prompts, lengths.tolist(), strict=True))
        ]

    def _write_blocks(
        self, prompts: list[list[int]], rooms: list[int], names: list[str], config: UnmaskingConfig
    ) -> list[_Written]:
        """Write block after block until every row has ended or has no room."""
        size, device = self._writer.block_length, self.model.device
        blocks = _Blocks(self.model, prompts, size, self._mask_id, self._offset)
        written = [_Written([], []) for _ in prompts]
        number, inside = 0, config.model_copy(update={"block_length": 0})
        while True:
            given = [prompt[len(prompt) // size * size :] if number == 0 else [] for prompt in prompts]
            ids = torch.full((len(prompts), size), self._mask_id, device=device)
            free = torch.ones(ids.shape, dtype=torch.bool, device=device)
            for row, tokens in enumerate(given):
                ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
                free[row, : len(tokens)] = False
            # a block's noise is its own, like a row's
            filled = unmask(blocks.predict, ids, self._mask_id, inside, [f"{name}/{number}" for name in names], free)
            for row, tokens in enumerate(given):
                written[row].ids.extend(filled.ids[row, len(tokens) :].tolist())
                written[row].logps.extend(filled.logps[row, len(tokens) :].tolist())
            if all(
                len(one.ids) >= room or not self._ends.isdisjoint(one.ids)
                for one, room in zip(written, rooms, strict=True)
            ):
                return written
            blocks.keep(filled.ids)
            number += 1

    def _completion(self, request: Request, prompt: list[int], written: _Written, room: int) -> Completion:
        ids = written.ids[:room]
        end = next((at for at, token in enumerate(ids) if token in self._ends), None)
        length = len(ids) if end is None else end + 1
        text = self.tokenizer.decode(ids[:end] if end is not None else ids, skip_special_tokens=True)
        return Completion(
            row_id=request.row_id,
            text=text,
            token_ids=tuple(ids[:length]),
            logp=sum(written.logps[:length]),
            finish_reason="length" if end is None else "stop",
            n_prompt_tokens=len(prompt),
        )


class _Blocks:
    """What has been written of some rows, as keys and values; and what the model says of their next block."""

    def __init__(self, model: Any, prompts: list[list[int]], size: int, mask_id: int, offset: int) -> None:
        self._decoder, self._head = causal_model(model).get_decoder(), head_weight(model)
        self._size, self._mask_id, self._offset = size, mask_id, offset
        device = model.device
        whole = [len(prompt) // size for prompt in prompts]  # complete blocks
        self._done = max(whole)
        # (N,) columns of padding, whole blocks
        self._pads = torch.tensor([(self._done - count) * size for count in whole], device=device)
        self._cache = DynamicCache()
        self._last: Tensor | None = None
        if self._done:
            ids = torch.zeros(len(prompts), self._done * size, dtype=torch.long, device=device)
            for row, (prompt, pad) in enumerate(zip(prompts, self._pads.tolist(), strict=True)):
                ids[row, pad:] = torch.tensor(prompt[: whole[row] * size], dtype=torch.long)
            columns = torch.arange(ids.shape[1], device=device)
            earlier = columns[None, :] // size <= columns[:, None] // size  # (T, T)
            real = columns >= self._pads[:, None]
            seen = (earlier & real[:, None, :]) | torch.eye(len(columns), dtype=torch.bool, device=device)
            self._last = self._read(ids, columns, seen)[:, -1]

    def predict(self, ids: Tensor, asked: Tensor) -> Tensor:
        """Return the logits of the asked positions of the next block, (N, V), in row order."""
        hidden = self._read_block(ids)
        self._cache.crop(-self._size)
        if self._offset:
            # before a block's first token stands the end of the clean block before; of the first block nothing is asked there
            before = torch.zeros_like(hidden[:, 0]) if self._last is None else self._last
            hidden = torch.cat([before[:, None], hidden[:, :-1]], dim=1)
        logits = (hidden[asked] @ self._head.T).to(torch.promote_types(hidden.dtype, torch.float32))
        logits[:, self._mask_id] = -torch.inf
        return logits

    def keep(self, ids: Tensor) -> None:
        """Take a block as written."""
        self._last = self._read_block(ids)[:, -1]
        self._done += 1

    def _read_block(self, ids: Tensor) -> Tensor:
        past = self._done * self._size
        columns = torch.arange(past, past + self._size, device=ids.device)
        real = torch.arange(past + self._size, device=ids.device) >= self._pads[:, None]
        return self._read(ids, columns, real[:, None, :].expand(-1, self._size, -1))

    def _read(self, ids: Tensor, columns: Tensor, seen: Tensor) -> Tensor:
        out: Tensor = self._decoder(
            input_ids=ids,
            position_ids=(columns - self._pads[:, None]).clamp_min(0),
            attention_mask=seen[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return out
