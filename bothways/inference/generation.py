"""Generation: texts that grow a token at a time, with the keys and values of earlier tokens kept.

Prompts of any lengths go through the model packed, as everything does. After that a step reads one token of each text:
matrix products see as many rows as there are texts, and a text that ends leaves the batch.

Shapes: N texts, A heads, D = H/A, C columns of the cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import PackedBatch, pack_sequences
from bothways.counter_random import mix, uniforms
from bothways.inference.sampling import GenerationOptions, draw, filtered_logits
from bothways.model.attention import attend
from bothways.model.encoder import Layer
from bothways.model.heads import CausalLMHead, Model

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Growing:
    """Texts in the making: what comes next by `logits`, one more token for each by `add`.

    The cache is a row a text, prompts aligned at their ends, so that a step writes one column; what lies before a
    shorter prompt is masked. Positions are counted from each text's own beginning.
    """

    def __init__(self, model: Model, prompts: Sequence[np.ndarray], room: int) -> None:
        """Read the prompts (ids with `[SOS]`); room: how many tokens can be added."""
        assert isinstance(model.head, CausalLMHead)
        self._encoder, self._head = model.encoder, model.head
        device = next(model.parameters()).device
        batch = pack_sequences([(ids, np.zeros_like(ids)) for ids in prompts]).to(device)
        self._lengths = batch.lengths.to(device)
        longest, config = batch.max_seqlen, model.config
        shape = (len(prompts), config.num_attention_heads, longest + room, config.head_size)
        dtype = model.encoder.embeddings.token.weight.dtype
        self._cache = [
            (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.num_hidden_layers)
        ]
        self._columns = longest
        self._mask = self._mask_of(longest - self._lengths)
        self.logits = self._read_prompts(batch)

    def _mask_of(self, unused: Tensor) -> Tensor | None:
        """bool `[N, 1, 1, C]`, False in the columns that a text does not have; None where every text has all."""
        self._unused = unused
        if not bool(unused.any()):
            return None
        columns = torch.arange(self._cache[0][0].shape[2], device=unused.device)
        return (columns >= unused[:, None])[:, None, None]

    def _read_prompts(self, batch: PackedBatch) -> Tensor:
        ends = torch.cumsum(batch.lengths, 0).tolist()
        starts = (self._columns - batch.lengths).tolist()

        def attended(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for kept, new in zip(self._cache[number], (k, v), strict=True):
                for row, (start, part) in enumerate(zip(starts, new.split(batch.lengths.tolist()), strict=True)):
                    kept[row, :, start : self._columns] = part.transpose(0, 1)
            return attend(q, k, v, batch.cu_seqlens, batch.max_seqlen, causal=True, lengths=batch.lengths)

        return self._through(batch, attended, torch.tensor(ends, device=batch.input_ids.device) - 1)

    def add(self, tokens: Tensor) -> None:
        """Put a token, int64 `[N]`, behind each text and find what comes next."""
        number = len(tokens)
        starts = torch.arange(number + 1, dtype=torch.int32)
        lengths = torch.ones(number, dtype=torch.long)
        batch = PackedBatch(tokens, torch.zeros_like(tokens), self._lengths, starts, 1, lengths)
        column, self._columns = self._columns, self._columns + 1
        mask = None if self._mask is None else self._mask[..., : self._columns]

        def attended(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._cache[number]
            keys[:, :, column], values[:, :, column] = k, v
            keys, values = keys[:, :, : self._columns], values[:, :, : self._columns]
            return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask)[:, :, 0]

        self.logits = self._through(batch, attended, None)
        self._lengths = self._lengths + 1

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts, int64 indices; one that is named twice goes on twice."""
        self._cache = [(keys[rows], values[rows]) for keys, values in self._cache]
        self._lengths, self.logits = self._lengths[rows], self.logits[rows]
        self._mask = self._mask_of(self._unused[rows])

    def _through(self, batch: PackedBatch, attended: Attend, rows: Tensor | None) -> Tensor:
        """The model with attention done by `attended(layer, q, k, v)`: logits `[N, V]` behind the `rows`."""
        hidden = self._encoder.embeddings(batch)
        layers = cast("Sequence[Layer]", self._encoder.layers)
        last = len(layers) - 1
        for number, layer in enumerate(layers):
            context = attended(number, *layer.attention.project(hidden)).flatten(1)
            if number == last and rows is not None:
                hidden, context = hidden[rows], context[rows]
            hidden = layer.finish(hidden, layer.attention.output(context))
        return self._head(hidden, batch).logits


@dataclass(frozen=True)
class Step:
    """Tokens that were added at the same time: to which texts (prompt and sample), which, and the logits `[N, V]` of
    which they were drawn."""

    texts: list[tuple[int, int]]
    tokens: list[int]
    logits: Tensor

    def likeliest(self, number: int) -> list[list[tuple[int, float]]]:
        """For each text the likeliest tokens and their probabilities, most likely first."""
        values, ids = self.logits.softmax(-1).topk(min(number, self.logits.shape[1]))
        return [list(zip(*both, strict=True)) for both in zip(ids.tolist(), values.tolist(), strict=True)]

    def probabilities(self) -> list[float]:
        """Of the tokens that were added."""
        rows = self.logits.softmax(-1)
        return [float(row[token]) for row, token in zip(rows, self.tokens, strict=True)]


@torch.inference_mode()
def generate(
    model: Model, prompts: Sequence[np.ndarray], options: GenerationOptions, *, end_id: int, never: Sequence[int] = ()
) -> Iterator[Step]:
    """Grow every prompt (ids with `[SOS]`) by up to `max_tokens`, or to its `end_id`, which is yielded as well.

    never: ids that are not drawn. What is drawn for a prompt does not depend on the others. Texts end where the
    position table does.
    """
    table = model.config.max_position_embeddings
    room = min(options.max_tokens, table - min(map(len, prompts)))
    growing = Growing(model.eval(), prompts, max(room, 0))
    device = growing.logits.device
    texts = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(options.samples)]
    if options.samples > 1:
        growing.keep(torch.tensor([prompt for prompt, _ in texts], device=device))
    keys = mix(options.seed, np.array([sample for _, sample in texts]))
    draws = torch.from_numpy(uniforms(keys[:, None], np.arange(room), 0)).to(device)
    pasts = [torch.from_numpy(prompts[prompt]).to(device) for prompt, _ in texts]
    barred = torch.tensor(list(never), dtype=torch.long, device=device)
    for step in range(room):
        logits = filtered_logits(growing.logits.index_fill_(1, barred, float("-inf")), options, pasts)
        chosen = logits.argmax(-1) if options.greedy else draw(logits, draws[:, step])
        tokens = chosen.tolist()
        yield Step(texts, tokens, logits)
        lengths = [len(prompts[prompt]) + step + 1 for prompt, _ in texts]
        alive = [n for n, token in enumerate(tokens) if token != end_id and lengths[n] < table]
        if not alive or step + 1 == room:
            return
        if options.uses_the_past:
            pasts = [torch.cat([pasts[n], chosen[n : n + 1]]) for n in alive]
        if len(alive) < len(texts):
            rows = torch.tensor(alive, device=device)
            growing.keep(rows)
            texts, chosen, draws = [texts[n] for n in alive], chosen[rows], draws[rows]
        growing.add(chosen)
