"""Prompts of mixed length -> completions, with a key-value cache and no step spent on a finished row.

Rows wait in a fixed order (longest prompt first, equal prompts side by side, then as given), which depends on the
requests alone. They are admitted into slots as slots become free: prompts are read in left-padded batches, equal
prompts once; then every active row moves one token a step, at its own length. A finished row leaves at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genai_core.config.generation import SamplingConfig
from genai_core.data.templates import end_token_ids
from genai_core.data.tokenizer import document_end_id
from genai_core.errors import ModelError
from genai_core.generation.cache import Decode, Prefill, SlotCache
from genai_core.generation.prompts import encode_request, room_for_answer
from genai_core.generation.sampling import choose_tokens, row_keys
from genai_core.generation.types import Completion, Request


class GenerationEngine:
    """Completions of one model. Not thread safe."""

    def __init__(
        self, model: Any, tokenizer: Any, *, max_rows: int = 256, prefill_tokens: int = 4096, cache_bytes: int = 1 << 30
    ) -> None:
        """Keep the model and tokenizer.

        Args:
            model: a transformers causal language model in eval mode.
            tokenizer: its tokenizer, with chat template.
            max_rows: most rows that decode together.
            prefill_tokens: most prompt tokens in one forward pass, unless a single prompt is longer.
            cache_bytes: most memory for keys and values; at least one row always fits.
        """
        self.model = model
        self.tokenizer = tokenizer
        self._max_rows = max_rows
        self._prefill_tokens = prefill_tokens
        self._cache_bytes = cache_bytes
        # the document's end too: a chat model may end with it what it began as a document (SmolLM2: eos is <|im_end|>)
        self._ends = sorted({*end_token_ids(tokenizer), document_end_id(tokenizer)})
        self._config = model.config.get_text_config()
        self._last_only = (
            {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        )

    @torch.inference_mode()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: SamplingConfig,
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """Return one completion a request, in the order of the requests.

        Args:
            on_token: called with (index of the request, token id) as soon as a token is drawn, not for the end token.
                What it raises ends the generation.

        Raises:
            ModelError: a prompt leaves no room for a single token, the model's attention is of a kind that the
                slots cannot hold, or its logits are not finite.
        """
        if not requests:
            return []
        prompts = [encode_request(self.tokenizer, request) for request in requests]
        limits = [
            room_for_answer(self.model.config, request, ids, sampling)
            for request, ids in zip(requests, prompts, strict=True)
        ]
        return _Run(self, requests, prompts, limits, sampling, on_token).complete()

    def forward(self, input_ids: Tensor, position_ids: Tensor, mask: Tensor | None, cache: SlotCache) -> Tensor:
        """Return the logits at the last position, (B, V), in float32 or wider."""
        out = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )
        logits: Tensor = out.logits[:, -1]
        return logits if logits.dtype == torch.float64 else logits.float()

    def new_cache(self, longest: int, n_requests: int) -> tuple[SlotCache, int]:
        """Return an empty cache for rows of up to `longest` tokens, and its number of slots.

        Raises ModelError if a layer of the model is not full attention over so many tokens.
        """
        config = self._config
        attention = getattr(config, "_attn_implementation", "eager")
        if attention not in ("eager", "sdpa"):
            raise ModelError(f"attn_implementation={attention!r} cannot read slots. Load the model with 'sdpa'.")
        window = getattr(config, "sliding_window", None)
        if window is not None and longest > window:
            raise ModelError(
                f"The model attends to a window of {window} tokens and a row needs {longest}. "
                f"Keep prompt and completion within {window} tokens."
            )
        kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if kinds:
            raise ModelError(f"Layers of kind {sorted(kinds)} cannot be generated with; use a full attention model.")
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        row_bytes = 2 * config.num_hidden_layers * heads * width * longest * self.model.dtype.itemsize
        n_slots = max(1, min(self._max_rows, n_requests, self._cache_bytes // row_bytes))
        return SlotCache(config.num_hidden_layers, n_slots, longest), n_slots


class _Run:
    """The state of one call: rows 0..n-1 of every tensor are the active slots."""

    def __init__(
        self,
        engine: GenerationEngine,
        requests: Sequence[Request],
        prompts: list[list[int]],
        limits: list[int],
        sampling: SamplingConfig,
        on_token: Callable[[int, int], None] | None,
    ) -> None:
        self.engine, self.requests, self.prompts, self.sampling = engine, requests, prompts, sampling
        self.on_token = on_token
        self.device = engine.model.device
        count = len(requests)
        self.waiting = sorted(range(count), key=lambda i: (-len(prompts[i]), prompts[i], i))
        longest = max(len(ids) + limit for ids, limit in zip(prompts, limits, strict=True))
        self.cache, self.n_slots = engine.new_cache(longest, count)
        # by request
        self.limits = torch.tensor(limits, device=self.device)
        self.keys = row_keys(sampling.seed, [request.row_id for request in requests]).to(self.device)
        named = [request.greedy for request in requests]
        self.greedy = torch.tensor(named, device=self.device) if any(named) else None
        self.tokens = torch.zeros(count, max(limits), dtype=torch.long, device=self.device)
        self.logps = torch.zeros(count, max(limits), dtype=torch.float64, device=self.device)
        self.counts = torch.zeros(count, dtype=torch.long, device=self.device)
        # by slot
        self.n = 0
        self.row = torch.zeros(self.n_slots, dtype=torch.long, device=self.device)
        self.length = torch.zeros(self.n_slots, dtype=torch.long, device=self.device)
        self.ends = torch.tensor(engine._ends, dtype=torch.long, device=self.device)

    def complete(self) -> list[Completion]:
        while self.waiting or self.n:
            free = self.n_slots - self.n
            # a quarter of the slots at a time: reading prompts one by one costs more than the slots' idle steps
            if self.waiting and (self.n == 0 or free >= max(1, self.n_slots // 4)):
                self._admit(free)
            else:
                self._decode()
        return self._completions()

    def _admit(self, free: int) -> None:
        rows, self.waiting = self.waiting[:free], self.waiting[free:]
        while rows:
            width = len(self.prompts[rows[0]])  # the longest, by the order
            most = max(1, self.engine._prefill_tokens // width)
            unique: list[list[int]] = []
            source: list[int] = []
            for row in rows:
                if not unique or self.prompts[row] != unique[-1]:
                    if len(unique) == most:
                        break
                    unique.append(self.prompts[row])
                source.append(len(unique) - 1)
            self._prefill(rows[: len(source)], unique, source, width)
            rows = rows[len(source) :]
        self._release()

    def _prefill(self, rows: list[int], unique: list[list[int]], source: list[int], width: int) -> None:
        """Read prompts, left-padded to `width`, into new slots and draw each row's first token."""
        ids = torch.tensor([[0] * (width - len(p)) + p for p in unique], device=self.device)  # (U, T)
        pads = torch.tensor([width - len(p) for p in unique], device=self.device)  # (U,)
        columns = torch.arange(width, device=self.device)
        mask = None
        if int(pads.max()) > 0:
            seen = (columns[None, :] <= columns[:, None]) & (columns >= pads[:, None, None])  # (U, T, T)
            mask = self._additive(seen[:, None])
        lengths = torch.tensor([len(self.prompts[row]) for row in rows], device=self.device)
        prompts = torch.tensor(source, device=self.device)
        slots = torch.arange(self.n, self.n + len(rows), device=self.device)
        plan = Prefill(slots, prompts, (columns + pads[:, None]).clamp(max=width - 1))
        positions = (columns - pads[:, None]).clamp(min=0)
        logits = self.engine.forward(ids, positions, mask, self.cache.expect(plan))
        self.row[slots] = torch.tensor(rows, device=self.device)
        self.length[slots] = lengths
        self.n += len(rows)
        self._draw(logits[prompts], slots)

    def _decode(self) -> None:
        """Move every active row one token on."""
        slots = torch.arange(self.n, device=self.device)
        row, length = self.row[: self.n], self.length[: self.n]
        last = self.tokens[row, self.counts[row] - 1]
        longest = int(length.max()) + 1
        seen = torch.arange(longest, device=self.device) <= length[:, None]  # (B, L)
        plan = Decode(length.clone(), longest)
        mask = self._additive(seen[:, None, None])
        logits = self.engine.forward(last[:, None], length[:, None], mask, self.cache.expect(plan))
        self.length[: self.n] += 1
        self._draw(logits, slots)
        self._release()

    def _draw(self, logits: Tensor, slots: Tensor) -> None:
        row = self.row[slots]
        position = self.counts[row]
        greedy = None if self.greedy is None else self.greedy[row]
        tokens, logps = choose_tokens(logits, self.sampling, self.keys[row], position, greedy)
        self.tokens[row, position] = tokens
        self.logps[row, position] = logps.double()
        self.counts[row] += 1
        if self.on_token is not None:
            for index, token in zip(row.tolist(), tokens.tolist(), strict=True):
                if token not in self.engine._ends:
                    self.on_token(index, token)

    def _release(self) -> None:
        """Give the slots of finished rows to the last active ones, so that 0..n-1 stay the active slots."""
        row = self.row[: self.n]
        counts = self.counts[row]
        done = torch.isin(self.tokens[row, counts - 1], self.ends) | (counts >= self.limits[row])
        left = self.n - int(done.sum())
        if left == self.n:
            return
        target = done[:left].nonzero()[:, 0]
        source = (~done[left:]).nonzero()[:, 0] + left
        if len(target):
            self.cache.move(source, target)
            self.row[target] = self.row[source]
            self.length[target] = self.length[source]
        self.n = left

    def _additive(self, seen: Tensor) -> Tensor:
        """Return the mask as numbers added to the scores: the one form that eager and sdpa both read rightly."""
        dtype = self.engine.model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill_(~seen, torch.finfo(dtype).min)

    def _completions(self) -> list[Completion]:
        ends = set(self.engine._ends)
        out = []
        counts, tokens = self.counts.tolist(), self.tokens.cpu()
        sums = self.logps.sum(dim=1).tolist()
        for index, request in enumerate(self.requests):
            if sums[index] != sums[index]:
                raise ModelError(
                    f"The model's logits are not numbers for row {request.row_id!r}: its weights are damaged."
                )
            ids = tokens[index, : counts[index]].tolist()
            stopped = ids[-1] in ends
            text = self.engine.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
            out.append(
                Completion(
                    row_id=request.row_id,
                    text=text,
                    token_ids=tuple(ids),
                    logp=sums[index],
                    finish_reason="stop" if stopped else "length",
                    n_prompt_tokens=len(self.prompts[index]),
                )
            )
        return out
