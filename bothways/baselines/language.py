"""What came before the transformer as a language model: counts of n words (`nltk.lm`), and the first neural one, a
feed-forward network over a window of words (Bengio et al. 2003).

All of them predict the pieces of one vocabulary, each document's and its end, so that their perplexities can be
compared with the transformer's on the same tokens.
"""

from __future__ import annotations

import collections
import itertools
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.data.store import SplitName, TokenStore
from bothways.errors import UserError
from bothways.text.tokenizer import Tokenizer

try:
    from nltk.lm import StupidBackoff
    from nltk.lm.api import LanguageModel
    from nltk.lm.models import InterpolatedLanguageModel
    from nltk.lm.smoothing import KneserNey, WittenBell
except ImportError as error:
    raise UserError(f"the baselines need nltk ({error}): pip install 'bothways[baselines]'") from error

SAMPLE, SUGGESTED = 30, 3  # tokens of the sample text, and words to suggest
DISCOUNT = 0.75  # Chen and Goodman 1999, section 3: what Kneser and Ney take from each count
Document = list[str]  # its pieces


@dataclass(frozen=True)
class LanguageModelResult:
    """What one language model did. perplexity: of the held-out documents, by token, None where its scores are no
    probabilities. train_seconds, size_bytes: of training, and of the model as it is kept. tokens_per_second: it writes.
    sample, suggestions: how it goes on from the prompt, and the words it finds likeliest there."""

    name: str
    perplexity: float | None
    train_seconds: float
    size_bytes: int
    tokens_per_second: float
    sample: str
    suggestions: list[str]


def documents(store: TokenStore, tokenizer: Tokenizer, split: SplitName) -> list[Document]:
    """The documents of a split as pieces, each with the `[SEP]` that ends it."""
    opened, found = store.split(split), []
    for index in range(opened.num_chunks):
        chunk = opened.chunk(index)
        offsets = chunk.sentence_offsets[chunk.document_offsets].tolist()
        for start, end in itertools.pairwise(offsets):
            found.append([tokenizer.token(id) for id in [*chunk.tokens[start:end].tolist(), tokenizer.sep_id]])
    return found


class _ToUnseen:
    """Every piece of the vocabulary gets at least a share: one is added to each count of a single piece."""

    counts: Any
    vocab: Any

    def unigram_score(self, word: str) -> float:
        single = self.counts.unigrams
        return (single[word] + 1) / (single.N() + len(self.vocab))


class _AddOne(_ToUnseen, WittenBell):
    """The base of the others, alone."""


class _WittenBell(_ToUnseen, WittenBell):
    """Witten and Bell 1991: what is kept for the shorter context grows with the number of different followers."""


class _KneserNey(KneserNey):
    """`nltk`'s, with its counts of different contexts made once instead of being searched for at each question."""

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


class Writer(Protocol):
    """What every language model is asked here."""

    def next(self, text: Document, number: int) -> list[str]:
        """The likeliest pieces behind a text that begin a word."""
        ...

    def sample(self, text: Document, number: int) -> Document:
        """How it goes on by so many tokens, drawn with a fixed seed."""
        ...


class NGram:
    """Counts of up to `order` pieces."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.model, self.order = model, model.order
        self._begin = tokenizer.token(tokenizer.cls_id)
        self._pieces = [tokenizer.token(id) for id in range(tokenizer.vocab_size)]

    def fit(self, train: Sequence[Document]) -> NGram:
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

    def _before(self) -> Document:
        return [self._begin] * (self.order - 1)

    def _contexts(self, document: Document) -> Iterator[tuple[str, tuple[str, ...]]]:
        text, width = [*self._before(), *document], self.order - 1
        return ((text[at + width], tuple(text[at : at + width])) for at in range(len(document)))

    def log_probability(self, documents: Sequence[Document]) -> float:
        score = self.model.unmasked_score  # the vocabulary is closed, nothing has to be looked up
        return sum(math.log(score(*one)) for document in documents for one in self._contexts(document))

    def next(self, text: Document, number: int) -> list[str]:
        context = tuple([*self._before(), *text][len(text) :])
        while context and not self.model.counts[context]:
            context = context[1:]
        followers = self.model.counts[context] if context else self.model.counts.unigrams
        words = [piece for piece in followers if _begins_word(piece)]
        return sorted(words, key=lambda piece: -self.model.unmasked_score(piece, context))[:number]

    def sample(self, text: Document, number: int) -> Document:
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


class FeedForward:
    """A network over the last `width` pieces; of the training documents a twentieth says when it has learnt enough."""

    def __init__(self, tokenizer: Tokenizer, width: int = 5, epochs: int = 10, batch: int = 512) -> None:
        self.width, self.epochs, self.batch = width, epochs, batch
        self._tokenizer = tokenizer
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = _Network(tokenizer.vocab_size, width)

    def fit(self, train: Sequence[Document]) -> FeedForward:
        cut = max(1, len(train) - max(1, len(train) // 20))
        (contexts, wanted), held_out = self._examples(train[:cut]), self._examples(train[cut:] or train)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        generator, best, kept = torch.Generator().manual_seed(0), math.inf, self.network.state_dict()
        batch = min(self.batch, max(16, len(wanted) // 100))  # of a small text too there are steps to learn in
        for _ in range(self.epochs):
            for rows in torch.randperm(len(wanted), generator=generator).split(batch):
                loss = F.cross_entropy(self.network(contexts[rows]), wanted[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            measured = -self._log_probability(*held_out)
            if measured >= best:
                break
            best, kept = measured, {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(kept)
        return self

    def _ids(self, document: Document) -> np.ndarray:
        begin = [self._tokenizer.cls_id] * self.width
        return np.array([*begin, *(self._tokenizer.id(piece) for piece in document)], dtype=np.int64)

    def _examples(self, documents: Sequence[Document]) -> tuple[Tensor, Tensor]:
        windows = [np.lib.stride_tricks.sliding_window_view(self._ids(one), self.width + 1) for one in documents]
        table = torch.from_numpy(np.concatenate(windows))
        return table[:, :-1], table[:, -1]

    @torch.no_grad()
    def _log_probability(self, contexts: Tensor, wanted: Tensor) -> float:
        parts = zip(contexts.split(4096), wanted.split(4096), strict=True)
        return -sum(float(F.cross_entropy(self.network(part), truth, reduction="sum")) for part, truth in parts)

    def log_probability(self, documents: Sequence[Document]) -> float:
        return self._log_probability(*self._examples(documents))

    @torch.no_grad()
    def _distribution(self, ids: list[int]) -> Tensor:
        return self.network(torch.tensor([ids[-self.width :]]))[0].softmax(-1)

    def next(self, text: Document, number: int) -> list[str]:
        ranked = self._distribution(self._ids(text).tolist()).argsort(descending=True).tolist()
        words = (self._tokenizer.token(id) for id in ranked)
        return list(itertools.islice(filter(_begins_word, words), number))

    def sample(self, text: Document, number: int) -> Document:
        ids, generator = self._ids(text).tolist(), torch.Generator().manual_seed(0)
        for _ in range(number):
            ids.append(int(torch.multinomial(self._distribution(ids), 1, generator=generator)))
            if ids[-1] == self._tokenizer.sep_id:
                ids.pop()
                break
        return [self._tokenizer.token(id) for id in ids[self.width + len(text) :]]


def _begins_word(piece: str) -> bool:
    return piece[0].isalnum()


def baselines(tokenizer: Tokenizer, order: int) -> Iterator[tuple[str, NGram | FeedForward]]:
    """Models by name, simplest first, untrained."""
    yield "1-gram", NGram(InterpolatedLanguageModel(_AddOne, 1), tokenizer)
    yield f"{order}-gram, stupid backoff", NGram(StupidBackoff(order=order), tokenizer)
    yield f"{order}-gram, Witten-Bell", NGram(InterpolatedLanguageModel(_WittenBell, order), tokenizer)
    kneser_ney = InterpolatedLanguageModel(_KneserNey, order, params={"order": order})
    yield f"{order}-gram, Kneser-Ney", NGram(kneser_ney, tokenizer)
    yield "feed-forward network", FeedForward(tokenizer)


def compare_baselines(
    train: Sequence[Document],
    held_out: Sequence[Document],
    tokenizer: Tokenizer,
    prompt: Document,
    order: int,
    say: Callable[[str], None],
) -> Iterator[LanguageModelResult]:
    """Train each on the documents and measure it on the held-out ones. say: told what begins.

    Stupid backoff (Brants et al. 2007) gives scores that do not sum to one, hence no perplexity.
    """
    tokens = sum(map(len, held_out))
    for name, model in baselines(tokenizer, order):
        say(f"training: {name}")
        began = time.perf_counter()
        model.fit(train)
        seconds = time.perf_counter() - began
        perplexity = None if "stupid" in name else math.exp(-model.log_probability(held_out) / tokens)
        kept = model.model if isinstance(model, NGram) else model.network
        yield written(name, model, perplexity, seconds, len(pickle.dumps(kept)), tokenizer, prompt)


def written(
    name: str,
    model: Writer,
    perplexity: float | None,
    seconds: float,
    size: int,
    tokenizer: Tokenizer,
    prompt: Document,
) -> LanguageModelResult:
    """The line of a trained model: it writes a sample, and suggests words behind the prompt."""
    began = time.perf_counter()
    sample = model.sample(prompt, SAMPLE)
    speed = len(sample) / (time.perf_counter() - began)
    text = tokenizer.decode([tokenizer.id(piece) or 0 for piece in sample])
    return LanguageModelResult(name, perplexity, seconds, size, speed, text, model.next(prompt, SUGGESTED))
