"""Generation: texts that grow a token at a time, with the keys and values of earlier tokens cached.

Prompts of any lengths go through the model packed, as everything does. After that a step reads one token of each text:
matrix products see as many rows as there are texts, and a text that ends leaves the batch.

Shapes: N texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bothways.batch import PackedBatch, pack_sequences
from bothways.counter_random import mix, uniforms
from bothways.inference.kv_cache import KVCache
from bothways.inference.sampling import GenerationOptions, draw_tokens, filtered_logits
from bothways.model.attention import Attend
from bothways.model.heads import Model, device_of


class Decoding:
    """Texts in the making: `logits` `[N, V]` of what comes next; `append` puts a token behind each.

    Positions are counted from each text's own beginning.
    """

    def __init__(self, model: Model, prompts: Sequence[np.ndarray], room: int) -> None:
        """Read the prompts (ids with `[SOS]`) with a causal model; room: how many tokens can be appended to each."""
        assert "causal-LM" in model.head.abilities
        self._model = model
        batch = pack_sequences([(ids, np.zeros_like(ids)) for ids in prompts]).to(device_of(model))
        self._lengths = batch.lengths.to(batch.input_ids.device)
        self._cache = KVCache(model.encoder, batch.lengths, room)
        last_tokens = batch.cu_seqlens[1:].long() - 1
        self.logits = self._logits(batch, last_tokens, self._cache.for_prompts())

    def append(self, tokens: Tensor) -> None:
        """Put a token, int64 `[N]`, behind each text and find what comes next."""
        count = len(tokens)
        starts, lengths = torch.arange(count + 1, dtype=torch.int32), torch.ones(count, dtype=torch.long)
        batch = PackedBatch(tokens, torch.zeros_like(tokens), self._lengths, starts, 1, lengths)
        self.logits = self._logits(batch, None, self._cache.for_next_token())
        self._lengths = self._lengths + 1

    def select(self, index: Tensor) -> None:
        """Go on with these texts, int64 indices; one that is named twice goes on twice."""
        self._cache.select(index)
        self._lengths, self.logits = self._lengths[index], self.logits[index]

    def _logits(self, batch: PackedBatch, only: Tensor | None, attend: Attend) -> Tensor:
        head = self._model.head
        scores = head.vocabulary_scores(head(self._model.encoder(batch, only, attend), batch))
        assert scores is not None
        return scores.logits


@dataclass(frozen=True)
class Step:
    """Tokens that were added at the same time.

    texts: (prompt, sample) of each text that grew. tokens: the token each got. logits: `[N, V]`, what they were drawn
    of.
    """

    texts: list[tuple[int, int]]
    tokens: list[int]
    logits: Tensor

    def likeliest(self, number: int) -> list[list[tuple[int, float]]]:
        """For each text the likeliest tokens and their probabilities, most likely first."""
        values, ids = self.logits.softmax(-1).topk(min(number, self.logits.shape[1]))
        return [list(zip(*both, strict=True)) for both in zip(ids.tolist(), values.tolist(), strict=True)]

    def probabilities(self) -> list[float]:
        """The probability of each token that was added."""
        by_text = self.logits.softmax(-1)
        return [float(probabilities[token]) for probabilities, token in zip(by_text, self.tokens, strict=True)]


@torch.inference_mode()
def generate(
    model: Model, prompts: Sequence[np.ndarray], options: GenerationOptions, *, end_id: int, never: Sequence[int] = ()
) -> Iterator[Step]:
    """Yields a `Step` for each round of tokens, up to `max_tokens` behind every prompt (ids with `[SOS]`), or to its
    `end_id`, which is yielded as well.

    never: ids that are not drawn. What is drawn for a prompt does not depend on the others. Texts end where the
    position table does.
    """
    table = model.config.max_sequence_length
    room = min(options.max_tokens, table - min(map(len, prompts)))
    decoding = Decoding(model.eval(), prompts, max(room, 0))
    device = decoding.logits.device
    texts = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(options.samples)]
    if options.samples > 1:
        decoding.select(torch.tensor([prompt for prompt, _ in texts], device=device))
    keys = mix(options.seed, np.array([sample for _, sample in texts]))
    draws = torch.from_numpy(uniforms(keys[:, None], np.arange(room), 0)).to(device)
    pasts = [torch.from_numpy(prompts[prompt]).to(device) for prompt, _ in texts]
    barred = torch.tensor(list(never), dtype=torch.long, device=device)
    for step in range(room):
        logits = filtered_logits(decoding.logits.index_fill_(1, barred, float("-inf")), options, pasts)
        chosen = logits.argmax(-1) if options.greedy else draw_tokens(logits, draws[:, step])
        tokens = chosen.tolist()
        yield Step(texts, tokens, logits)
        lengths = [len(prompts[prompt]) + step + 1 for prompt, _ in texts]
        alive = [n for n, token in enumerate(tokens) if token != end_id and lengths[n] < table]
        if not alive or step + 1 == room:
            return
        if options.uses_the_past:
            pasts = [torch.cat([pasts[n], chosen[n : n + 1]]) for n in alive]
        if len(alive) < len(texts):
            index = torch.tensor(alive, device=device)
            decoding.select(index)
            texts, chosen, draws = [texts[n] for n in alive], chosen[index], draws[index]
        decoding.append(chosen)
