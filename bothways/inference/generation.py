"""Generation: texts that grow a token at a time, with the keys and values of earlier tokens cached.

Prompts of any lengths go through the model packed, as everything does. After that a step reads one token of each text:
matrix products see as many rows as there are texts, and a text that ends leaves the batch. The forward passes are
`Forward`s as all others are, so a server runs those of many callers together: a text joins and leaves between steps.

Shapes: N texts, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.counter_random import mix, uniforms
from bothways.data.encoded import Encoded, pack_encoded
from bothways.hardware import inference_batch_tokens, memory_errors
from bothways.inference.engine import Forward, Question, no_targets
from bothways.inference.generation_options import GenerationOptions
from bothways.inference.kv_cache import TextCache, attend_to_caches, attend_within_prompts
from bothways.inference.sampling import draw_tokens, filtered_logits
from bothways.model.attention import Attend
from bothways.model.heads import Model, device_of
from bothways.token_budget import cut_to_budget


@dataclass(frozen=True)
class TextTokens(Encoded):
    """A whole prompt, or the last token of a text in the making, and the cache of what was read before."""

    cache: TextCache | None = None


@dataclass(frozen=True)
class Growth(Forward):
    """What texts in the making have to read next, `TextTokens`; a result is what comes behind: logits `[V]`.

    Texts of many callers may go on in one batch, and join and leave it between steps.
    """

    goes_on_at_once: ClassVar[bool] = True

    def run(self) -> list[Any]:
        lengths = [len(text.input_ids) for text in self.encoded]
        results: list[Tensor] = []
        for cut in cut_to_budget(lengths, inference_batch_tokens(self.device)):
            results += self._next_logits(self.encoded[cut])
        for text in self.encoded:  # at the end, so that a pass that failed can be run again
            _cache_of(text).length += len(text.input_ids)
        return results

    @torch.inference_mode()
    def _next_logits(self, texts: Sequence[Encoded]) -> list[Tensor]:
        batch = pack_encoded(texts, no_targets)
        with memory_errors(self.device, f"a batch of {batch.num_tokens:,} tokens"):
            return list(self.model(batch.to(self.device), list(map(_cache_of, texts))))  # type: ignore[call-arg]


def _cache_of(text: Encoded) -> TextCache:
    cache = cast("TextTokens", text).cache
    assert cache is not None
    return cache


class Decoding:
    """Texts in the making, each with its cache: says what has to be read of them next.

    Positions are counted from each text's own beginning.
    """

    def __init__(self, model: Model, prompts: Sequence[np.ndarray], room: int) -> None:
        """prompts: ids with `[SOS]`, of a causal model. room: how many tokens can be appended to each."""
        assert "causal-LM" in model.head.abilities
        self._model, self._prompts = model, prompts
        self._caches = [TextCache(model.encoder, len(ids) + room) for ids in prompts]

    def read_prompts(self) -> Growth:
        """The forward pass over the prompts."""
        return self._reading(self._prompts, self._logits_behind_prompts, "prompts")

    def append(self, tokens: Sequence[int]) -> Growth:
        """The forward pass over one more token of each text."""
        return self._reading([np.array([token]) for token in tokens], self._logits_behind_tokens, "tokens")

    def select(self, index: Sequence[int]) -> None:
        """Go on with these texts; one that is named twice goes on twice."""
        first = {n: place for place, n in reversed(list(enumerate(index)))}
        self._caches = [
            self._caches[n] if first[n] == place else self._caches[n].copy() for place, n in enumerate(index)
        ]

    def _reading(self, ids: Sequence[np.ndarray], logits: Callable[..., Tensor], kind: str) -> Growth:
        def tokens(of_text: np.ndarray, cache: TextCache) -> TextTokens:
            nothing = np.zeros(len(of_text), dtype=np.int64)
            return TextTokens(of_text, nothing, nothing, nothing, cache=cache)

        texts = [tokens(*both) for both in zip(ids, self._caches, strict=True)]
        return Growth(logits, _no_split, texts, device_of(self._model), ("growth", kind))

    def _logits_behind_prompts(self, batch: PackedBatch, caches: Sequence[TextCache]) -> Tensor:
        for cache in caches:
            cache.allocate()
        return self._logits(batch, batch.cu_seqlens[1:].long() - 1, attend_within_prompts(caches))

    def _logits_behind_tokens(self, batch: PackedBatch, caches: Sequence[TextCache]) -> Tensor:
        positions = torch.tensor([cache.length for cache in caches]).to(batch.input_ids.device)
        return self._logits(replace(batch, position_ids=positions), None, attend_to_caches(caches))

    def _logits(self, batch: PackedBatch, only: Tensor | None, attend: Attend) -> Tensor:
        head = self._model.head
        scores = head.vocabulary_scores(head(self._model.encoder(batch, only, attend), batch))
        assert scores is not None
        return scores.logits


def _no_split(scores: Any, sequences: Sequence[Encoded], batch: PackedBatch) -> Sequence[Any]:
    raise AssertionError("a growth splits its scores itself")


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


class Generation:
    """Texts that go on up to `max_tokens` behind every prompt (ids with `[SOS]`), or to its `end_id`, which is drawn as
    well: `wanted` has to be run, and `draw` draws of what came of it.

    never: ids that are not drawn. What is drawn for a prompt does not depend on the others. Texts end where the
    position table does.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[np.ndarray],
        options: GenerationOptions,
        *,
        end_id: int,
        never: Sequence[int] = (),
    ) -> None:
        self._table, self._options, self._end_id, self._step = model.config.max_sequence_length, options, end_id, 0
        self._room = max(min(options.max_tokens, self._table - min(map(len, prompts))), 0)
        self._decoding = Decoding(model.eval(), prompts, self._room)
        self._texts = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(options.samples)]
        self._lengths = [len(prompts[prompt]) for prompt, _ in self._texts]
        keys = mix(options.seed, np.array([sample for _, sample in self._texts]))
        device = device_of(model)
        self._draws = torch.from_numpy(uniforms(keys[:, None], np.arange(self._room), 0)).to(device)
        self._pasts = [torch.from_numpy(prompts[prompt]).to(device) for prompt, _ in self._texts]
        self._barred = torch.tensor(list(never), dtype=torch.long, device=device)
        self.wanted: Growth | None = self._decoding.read_prompts() if self._room else None

    @torch.inference_mode()
    def draw(self, behind: Sequence[Tensor]) -> Step:
        """The next token of each text. behind: what came of `wanted`."""
        if self._step == 0 and self._options.samples > 1:
            prompts = [prompt for prompt, _ in self._texts]
            self._decoding.select(prompts)
            behind = [behind[prompt] for prompt in prompts]
        logits = torch.stack(list(behind)).index_fill_(1, self._barred, float("-inf"))
        logits = filtered_logits(logits, self._options, self._pasts)
        greedy = self._options.greedy
        chosen = logits.argmax(-1) if greedy else draw_tokens(logits, self._draws[:, self._step])
        step = Step(self._texts, chosen.tolist(), logits)
        self._step += 1
        self._go_on(chosen, step.tokens)
        return step

    def _go_on(self, chosen: Tensor, tokens: Sequence[int]) -> None:
        """With the texts that have not ended."""
        self._lengths = [length + 1 for length in self._lengths]
        alive = [n for n, token in enumerate(tokens) if token != self._end_id and self._lengths[n] < self._table]
        if not alive or self._step == self._room:
            self.wanted = None
            return
        if self._options.uses_the_past:
            self._pasts = [torch.cat([self._pasts[n], chosen[n : n + 1]]) for n in alive]
        if len(alive) < len(self._texts):
            self._decoding.select(alive)
            self._texts, self._lengths = [self._texts[n] for n in alive], [self._lengths[n] for n in alive]
            self._draws = self._draws[alive]
        self.wanted = self._decoding.append([tokens[n] for n in alive])


def ask_generation(generation: Generation, tell: Callable[[Step], None]) -> Question[None]:
    """Tells each `Step` of a generation as it is made."""
    while generation.wanted is not None:
        tell(generation.draw((yield generation.wanted)))


def steps_told(ask: Callable[[Callable[[Step], None]], Question[None]]) -> Iterator[Step]:
    """The steps that a question tells, which is run here and now, each as it is made. ask: the question, given whom it
    tells."""
    told: list[Step] = []
    question = ask(told.append)
    with contextlib.closing(question), contextlib.suppress(StopIteration):
        forward = next(question)
        while True:
            forward = question.send(forward.run())
            yield told.pop()
    yield from told


def generate(
    model: Model, prompts: Sequence[np.ndarray], options: GenerationOptions, *, end_id: int, never: Sequence[int] = ()
) -> Iterator[Step]:
    """Yields the steps of a `Generation`, run here and now."""
    generation = Generation(model, prompts, options, end_id=end_id, never=never)
    return steps_told(lambda tell: ask_generation(generation, tell))
