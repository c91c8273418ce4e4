"""The language models before the transformer: n-grams (`nltk.lm`), and the first neural model, a feed-forward network
over a window of words (Bengio et al. 2003).

All of them predict the pieces of one vocabulary, those of each document and its end, so that their perplexities can be
compared with the transformer's on the same tokens.

Shapes: B examples of a batch, V vocabulary.
"""

from __future__ import annotations

import collections
import itertools
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.baselines.results import SAMPLE_TOKENS, SUGGESTED_WORDS, LanguageModelResult, TrainingCost
from bothways.data.store import SplitName, TokenStore
from bothways.errors import UserError, install_command
from bothways.text.tokenizer import Tokenizer

try:
    from nltk.lm import StupidBackoff, api
    from nltk.lm.models import InterpolatedLanguageModel
    from nltk.lm.smoothing import KneserNey, WittenBell
except ImportError as error:
    raise UserError(f"the baselines need nltk ({error}): {install_command('baselines')}") from error

DISCOUNT = 0.75  # Chen and Goodman 1999, section 3: what Kneser and Ney take from each count
# A small text gets smaller batches, so that an epoch has enough steps to learn in. Both were chosen by hand.
MIN_EPOCH_STEPS, MIN_BATCH_EXAMPLES = 100, 16
SCORED_AT_ONCE = 4096  # examples: V scores each, 130 MB with 8,192 pieces
PieceTokens = list[str]  # the tokens of a document or a prompt, as pieces of the vocabulary


def read_documents_of(store: TokenStore, tokenizer: Tokenizer, split: SplitName) -> list[PieceTokens]:
    """The documents of a split as pieces, each with the `[SEP]` that ends it."""
    chunks, found = store.split(split), []
    for index in range(chunks.num_chunks):
        chunk = chunks.chunk(index)
        offsets = chunk.sentence_offsets[chunk.document_offsets].tolist()
        for start, end in itertools.pairwise(offsets):
            found.append([tokenizer.token(id) for id in [*chunk.tokens[start:end].tolist(), tokenizer.sep_id]])
    return found


class _AddOneUnigrams:
    """Add-one smoothing of single pieces (Laplace), so that every piece of the vocabulary has a probability."""

    counts: Any
    vocab: Any

    def unigram_score(self, word: str) -> float:
        single = self.counts.unigrams
        return (single[word] + 1) / (single.N() + len(self.vocab))


class _Unigram(_AddOneUnigrams, WittenBell):
    """The smoothing of a model of single pieces; Witten and Bell's formula is not used without a context."""


class _WittenBell(_AddOneUnigrams, WittenBell):
    """Witten and Bell 1991: the share of the shorter context grows with the number of different followers."""


class _KneserNey(KneserNey):
    """`nltk`'s Kneser-Ney, whose counts of different contexts are made once instead of searched for at each call."""

    def __init__(self, vocabulary: Any, counter: Any, order: int) -> None:
        super().__init__(vocabulary, counter, order, DISCOUNT)
        self._tables: dict[tuple[str, ...], collections.Counter[str]] | None = None

    def _continuation_counts(self, word: str, context: tuple[str, ...] = ()) -> tuple[int, int]:
        if self._tables is None:
            self._tables = collections.defaultdict(collections.Counter)
            for length in range(2, self._order + 1):
                for prefix, followers in self.counts[length].items():
                    self._tables[prefix[1:]].update({follower: 1 for follower, count in followers.items() if count})
        table = self._tables[context]
        return table[word], table.total()

    def unigram_score(self, word: str) -> float:
        count, total = self._continuation_counts(word)
        return (count + 1) / (total + len(self.vocab))


class LanguageModel(Protocol):
    """What every language model of the comparison does, the transformer as well."""

    def next_words(self, text: PieceTokens, number: int) -> list[str]:
        """The likeliest pieces behind a text that begin a word, likeliest first."""
        ...

    def sample(self, text: PieceTokens, number: int) -> PieceTokens:
        """At most `number` tokens behind a text, drawn with a fixed seed; they end before the text's `[SEP]`."""
        ...


class NGram:
    """A model of `nltk.lm`: counts of up to `order` pieces."""

    def __init__(self, model: api.LanguageModel, tokenizer: Tokenizer) -> None:
        self.model, self.order = model, model.order
        self._begin = tokenizer.token(tokenizer.cls_id)
        self._pieces = [tokenizer.token(id) for id in range(tokenizer.vocab_size)]

    def fit(self, train: Sequence[PieceTokens]) -> NGram:
        """Count the documents' n-grams."""
        grams = (
            [
                (*context[len(context) - n :], piece)
                for piece, context in self._contexts(document)
                for n in range(self.order)
            ]
            for document in train
        )
        self.model.fit(grams, self._pieces)
        return self

    def _before(self) -> PieceTokens:
        return [self._begin] * (self.order - 1)

    def _contexts(self, document: PieceTokens) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each piece of a document with the `order - 1` pieces before it."""
        text, width = [*self._before(), *document], self.order - 1
        return ((text[at + width], tuple(text[at : at + width])) for at in range(len(document)))

    def log_probability(self, documents: Sequence[PieceTokens]) -> float:
        """The natural logarithm of the probability of all pieces of the documents."""
        score = self.model.unmasked_score  # the vocabulary is closed, nothing has to be looked up
        return sum(
            math.log(score(piece, context)) for document in documents for piece, context in self._contexts(document)
        )

    def next_words(self, text: PieceTokens, number: int) -> list[str]:
        """See `LanguageModel`. Where the context was never seen, a shorter one decides."""
        context = tuple([*self._before(), *text][len(text) :])
        while context and not self.model.counts[context]:
            context = context[1:]
        followers = self.model.counts[context] if context else self.model.counts.unigrams
        words = [piece for piece in followers if _begins_word(piece)]
        return sorted(words, key=lambda piece: -self.model.unmasked_score(piece, context))[:number]

    def sample(self, text: PieceTokens, number: int) -> PieceTokens:
        """See `LanguageModel`."""
        made = self.model.generate(number, [*self._before(), *text], random_seed=0)
        return made[: made.index("[SEP]")] if "[SEP]" in made else list(made)


class _Network(nn.Module):
    """Embeddings of the last pieces, side by side → tanh → a score for every piece."""

    def __init__(self, vocab_size: int, width: int, embedding: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, embedding)
        self.hidden = nn.Linear(width * embedding, hidden)
        self.output = nn.Linear(hidden, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        """contexts: int64 `[B, width]` → logits `[B, V]`."""
        logits: Tensor = self.output(torch.tanh(self.hidden(self.table(contexts).flatten(1))))
        return logits


class FeedForwardLM:
    """A network over the last `width` pieces (Bengio et al. 2003).

    Training stops at the first epoch that does not improve a twentieth of the training documents, set aside for that.
    """

    def __init__(self, tokenizer: Tokenizer, width: int = 5, epochs: int = 10, batch_size: int = 512) -> None:
        self.width, self.epochs, self.batch_size = width, epochs, batch_size
        self._tokenizer = tokenizer
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = _Network(tokenizer.vocab_size, width)

    def fit(self, train: Sequence[PieceTokens]) -> FeedForwardLM:
        """Train for at most `epochs` epochs with Adam, from a fixed seed."""
        cut = max(1, len(train) - max(1, len(train) // 20))
        (contexts, labels), held_out = self._examples(train[:cut]), self._examples(train[cut:] or train)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        generator, lowest, best = torch.Generator().manual_seed(0), math.inf, self.network.state_dict()
        batch_size = min(self.batch_size, max(MIN_BATCH_EXAMPLES, len(labels) // MIN_EPOCH_STEPS))
        for _ in range(self.epochs):
            for index in torch.randperm(len(labels), generator=generator).split(batch_size):
                loss = F.cross_entropy(self.network(contexts[index]), labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            measured = -self._log_probability(*held_out)
            if measured >= lowest:
                break
            lowest, best = measured, {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(best)
        return self

    def _ids(self, document: PieceTokens) -> np.ndarray:
        begin = [self._tokenizer.cls_id] * self.width
        return np.array([*begin, *(self._tokenizer.id(piece) for piece in document)], dtype=np.int64)

    def _examples(self, documents: Sequence[PieceTokens]) -> tuple[Tensor, Tensor]:
        """Contexts int64 `[B, width]` and the piece that follows each, int64 `[B]`, of all documents."""
        ids = [self._ids(document) for document in documents]
        windows = [np.lib.stride_tricks.sliding_window_view(of_document, self.width + 1) for of_document in ids]
        table = torch.from_numpy(np.concatenate(windows))
        return table[:, :-1], table[:, -1]

    @torch.no_grad()
    def _log_probability(self, contexts: Tensor, labels: Tensor) -> float:
        batches = zip(contexts.split(SCORED_AT_ONCE), labels.split(SCORED_AT_ONCE), strict=True)
        return -sum(float(F.cross_entropy(self.network(read), gold, reduction="sum")) for read, gold in batches)

    def log_probability(self, documents: Sequence[PieceTokens]) -> float:
        """The natural logarithm of the probability of all pieces of the documents."""
        return self._log_probability(*self._examples(documents))

    @torch.no_grad()
    def _distribution(self, ids: list[int]) -> Tensor:
        return self.network(torch.tensor([ids[-self.width :]]))[0].softmax(-1)

    def next_words(self, text: PieceTokens, number: int) -> list[str]:
        """See `LanguageModel`."""
        ranked = self._distribution(self._ids(text).tolist()).argsort(descending=True).tolist()
        words = (self._tokenizer.token(id) for id in ranked)
        return list(itertools.islice(filter(_begins_word, words), number))

    def sample(self, text: PieceTokens, number: int) -> PieceTokens:
        """See `LanguageModel`."""
        ids, generator = self._ids(text).tolist(), torch.Generator().manual_seed(0)
        for _ in range(number):
            ids.append(int(torch.multinomial(self._distribution(ids), 1, generator=generator)))
            if ids[-1] == self._tokenizer.sep_id:
                ids.pop()
                break
        return [self._tokenizer.token(id) for id in ids[self.width + len(text) :]]


def _begins_word(piece: str) -> bool:
    return piece[0].isalnum()


def baseline_language_models(tokenizer: Tokenizer, order: int) -> Iterator[tuple[str, NGram | FeedForwardLM]]:
    """Untrained models by name, simplest first. order: of the n-grams, from 2."""
    yield "1-gram", NGram(InterpolatedLanguageModel(_Unigram, 1), tokenizer)
    yield f"{order}-gram, stupid backoff", NGram(StupidBackoff(order=order), tokenizer)
    yield f"{order}-gram, Witten-Bell", NGram(InterpolatedLanguageModel(_WittenBell, order), tokenizer)
    kneser_ney = InterpolatedLanguageModel(_KneserNey, order, params={"order": order})
    yield f"{order}-gram, Kneser-Ney", NGram(kneser_ney, tokenizer)
    yield "feed-forward network", FeedForwardLM(tokenizer)


def compare_language_models(
    train: Sequence[PieceTokens],
    held_out: Sequence[PieceTokens],
    tokenizer: Tokenizer,
    prompt: PieceTokens,
    order: int,
    say: Callable[[str], None],
) -> Iterator[LanguageModelResult]:
    """Train each baseline on documents and measure it on held-out documents. say: told what begins.

    Stupid backoff (Brants et al. 2007) gives scores that do not sum to one, hence no perplexity.
    """
    tokens = sum(map(len, held_out))
    for name, model in baseline_language_models(tokenizer, order):
        say(f"training: {name}")
        began = time.perf_counter()
        model.fit(train)
        seconds = time.perf_counter() - began
        perplexity = None if "stupid" in name else math.exp(-model.log_probability(held_out) / tokens)
        kept = model.model if isinstance(model, NGram) else model.network
        cost = TrainingCost(seconds, len(pickle.dumps(kept)))
        yield measure_language_model(name, model, perplexity, cost, tokenizer, prompt)


def measure_language_model(
    name: str,
    model: LanguageModel,
    perplexity: float | None,
    cost: TrainingCost,
    tokenizer: Tokenizer,
    prompt: PieceTokens,
) -> LanguageModelResult:
    """Time a trained model while it generates a sample behind the prompt, and ask it for the next words."""
    began = time.perf_counter()
    sample = model.sample(prompt, SAMPLE_TOKENS)
    speed = len(sample) / (time.perf_counter() - began)
    text = tokenizer.decode([tokenizer.id(piece) or 0 for piece in sample])
    words = model.next_words(prompt, SUGGESTED_WORDS)
    return LanguageModelResult(name, perplexity, cost.seconds, cost.size_bytes, speed, text, words)
