"""What a language model can be asked: how a text goes on, how likely it is, which words may follow.

Shapes: T tokens of a text, V vocabulary.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import PackedBatch, pack_sequences
from bothways.checkpoint.shipped import shipped_hint
from bothways.data.encoded import Encoded, assemble
from bothways.errors import TruncationWarning, UserError, option, warn_truncated
from bothways.inference import engine
from bothways.inference.generation import Decoding, Step, generate
from bothways.inference.sampling import GenerationOptions
from bothways.inference.texts import Texts
from bothways.option_checks import require_count
from bothways.tasks.results import Result
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Pieces, Tokenizer

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

PROMPTS_AT_ONCE = 32  # prompts that are continued in one batch; bounds the memory of the cache
BEAM_WORDS = 12  # beginnings of words that `suggest_words` follows at least; chosen by hand
MAX_WORD_PIECES = 5  # of a suggested word: longer words are not suggested; chosen by hand
MAX_NATS = 700  # exp(709.8) is the largest float64


@dataclass(frozen=True, repr=False)
class TokenProbability(Result):
    """A piece and the probability that it stands at its place: at a `[MASK]`, in a text, or behind one."""

    token: str
    probability: float


@dataclass(frozen=True, repr=False)
class TextScore(Result):
    """How likely a text is.

    log_probability: natural logarithm, the sum over its pieces; perplexity: exp of minus their mean. tokens: the pieces
    in order. next: the pieces of the word asked for behind the text; next_probability: their product, None where none
    was asked. alternatives: pieces that may come next, most likely first.
    """

    log_probability: float
    perplexity: float
    tokens: list[TokenProbability]
    next: list[TokenProbability]
    next_probability: float | None
    alternatives: list[TokenProbability]


@dataclass(frozen=True, repr=False)
class Suggestion(Result):
    """A word that may come next. probability: of all its pieces, and that the word ends with them."""

    word: str
    probability: float


def continue_prompts(
    model: LoadedModel, prompts: Texts, options: GenerationOptions, truncate: str | None = None
) -> Any:
    """The continuation of a prompt; of several prompts a list. With several `samples` each is a list of its samples.

    Raises UserError for an empty or too long prompt, and for a model that reads both ways.
    """
    require_causal(model, "generate")
    asked = model.asked(prompts, "generate", pairs=False)
    texts = generate_texts(model, prompt_ids(model, asked.texts, options, truncate), options)
    return asked.given([samples if options.samples > 1 else samples[0] for samples in texts])


def stream_text(
    model: LoadedModel, prompt: str, options: GenerationOptions, truncate: str | None = None
) -> Iterator[str]:
    """The continuation of a prompt, piece by piece. Raises UserError at once, as `continue_prompts` does."""
    require_causal(model, "stream")
    prompts = prompt_ids(model, [prompt], options, truncate)
    options = replace(options, samples=1)
    return text_pieces(model.tokenizer, (step.tokens[0] for step in generate_steps(model, prompts, options)))


def prompt_ids(
    model: LoadedModel, prompts: Sequence[Any], options: GenerationOptions, truncate: str | None
) -> list[np.ndarray]:
    """The ids of each prompt behind `[SOS]`, int64 `[T]`.

    Raises UserError for an empty prompt, and for one that leaves no room to go on in, unless `truncate` is "left": then
    it loses its beginning, of which a `TruncationWarning` tells. Warns of prompts that the vocabulary cannot read.
    """
    if truncate not in (None, "left"):
        raise UserError(f"{option('truncate', truncate)}: accepted: left")
    for number, prompt in enumerate(prompts, 1):
        if not isinstance(prompt, str) or not is_unicode(prompt):
            raise UserError(f"prompt {number}: expected a string, found {prompt!a}")
    ids = [pieces.input_ids for pieces in model.tokenizer.encode_batch(list(prompts), special_tokens=False)]
    for number, of_prompt in enumerate(ids, 1):
        if not len(of_prompt):
            raise UserError(f"prompt {number} is empty; give a word or two to begin with")
    model.warn_of_unknown(ids)
    begin = np.array(model.tokenizer.template.prefix, dtype=np.int64)
    return [np.concatenate([begin, of_prompt]) for of_prompt in _fitting(model, ids, options, truncate)]


def _fitting(
    model: LoadedModel, ids: Sequence[np.ndarray], options: GenerationOptions, truncate: str | None
) -> list[np.ndarray]:
    """The ids of each prompt, still without `[SOS]`, short enough to go on from."""
    table = model.config.max_sequence_length
    kept = table - 1 - min(options.max_tokens, table // 2)
    too_long = [of_prompt for of_prompt in ids if len(of_prompt) > table - 2]
    if not too_long:
        return list(ids)
    if truncate is None:
        raise UserError(
            f"the prompt is {len(too_long[0]):,} tokens long; the position table has {table:,} rows, which leaves no "
            f"room to go on; {option('truncate', 'left')} reads its end only"
        )
    message = f"{len(too_long):,} prompts are longer than the position table ({table:,} rows) and lost their beginning"
    warn_truncated(message)
    return [of_prompt[-kept:] if len(of_prompt) > table - 2 else of_prompt for of_prompt in ids]


def generate_steps(model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions) -> Iterator[Step]:
    """The steps in which tokens come behind prompts (ids with `[SOS]`). Warns where the position table ends a text."""
    tokenizer, table = model.tokenizer, model.config.max_sequence_length
    lengths: dict[tuple[int, int], int] = {}  # tokens generated so far, by prompt and sample
    ended: set[tuple[int, int]] = set()
    for step in generate(
        model.for_generation, prompts, options, end_id=tokenizer.sep_id, never=tokenizer.suppressed_ids
    ):
        for text, token in zip(step.texts, step.tokens, strict=True):
            lengths[text] = lengths.get(text, 0) + 1
            if token == tokenizer.sep_id:
                ended.add(text)
        yield step
    cut = [text for text, length in lengths.items() if text not in ended and length < options.max_tokens]
    if cut:
        message = f"{len(cut):,} texts end where the position table does, at {table:,} tokens"
        warn_truncated(message)


def generate_texts(model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions) -> list[list[str]]:
    """For each prompt (ids with `[SOS]`), in order, its samples: the texts that come behind it, each with its first
    blank. Prompts of similar length are continued together."""
    rounds = generate_rounds(model, prompts, options)
    while True:
        try:
            next(rounds)
        except StopIteration as end:
            texts: list[list[str]] = end.value
            return texts


def generate_rounds(
    model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions
) -> Generator[dict[tuple[int, int], int], None, list[list[str]]]:
    """As `generate_texts`, yielding behind each step the token of each (prompt, sample) that grew."""
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    texts: list[list[str]] = [[] for _ in prompts]
    for start in range(0, len(order), PROMPTS_AT_ONCE):
        chosen = order[start : start + PROMPTS_AT_ONCE]
        ids: dict[tuple[int, int], list[int]] = {(n, sample): [] for n in chosen for sample in range(options.samples)}
        for step in generate_steps(model, [prompts[n] for n in chosen], options):
            for (prompt, sample), token in zip(step.texts, step.tokens, strict=True):
                ids[chosen[prompt], sample].append(token)
            yield {
                (chosen[prompt], sample): token for (prompt, sample), token in zip(step.texts, step.tokens, strict=True)
            }
        for (n, _), of_sample in ids.items():
            texts[n].append("".join(text_pieces(model.tokenizer, of_sample)))
    return texts


def text_pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text that each token adds, with its blank and without `[EOS]`; joined they are the continuation."""
    yield from tokenizer.text_pieces(id for id in ids if id != tokenizer.sep_id)


def score_texts(model: LoadedModel, texts: Texts, next_word: str | None, top_k: int) -> Any:
    """The score of a text: by a causal model token by token from the left; by a masked model its pseudo-log-likelihood
    (Salazar et al. 2020), each piece masked together with the later pieces of its word (Kauf and Ivanova 2023). Of many
    texts a list.

    next_word: the word whose probability behind the text is wanted. top_k: pieces that may come next to tell, at least
    1. Raises UserError for a model that is no language model, and for an empty or too long text.
    """
    model.require_head("language-model", "score")
    if "causal-LM" in model.model.head.abilities:
        require_causal(model, "score")
    require_count(top_k=top_k)
    asked = model.asked(texts, "score", pairs=False)
    pieces = [_pieces_to_score(model, text, next_word) for text in asked.texts]
    model.warn_of_unknown([of_text.input_ids for of_text, _ in pieces])
    return asked.given([_score(model, *of_text, top_k) for of_text in pieces])


def _score(model: LoadedModel, pieces: Pieces, behind: Pieces, top_k: int) -> TextScore:
    """behind: the pieces of the word asked for, none where there is no such word."""
    by_model = _score_causal if "causal-LM" in model.model.head.abilities else _score_masked
    of_text, of_next, following = by_model(model, pieces, behind)
    values, ids = following.topk(min(top_k, len(following)))
    token = model.tokenizer.token
    alternatives = zip(ids.tolist(), values.tolist(), strict=True)
    return TextScore(
        float(of_text.sum()),
        math.exp(min(-float(of_text.mean()), MAX_NATS)),
        _token_probabilities(model.tokenizer, pieces, of_text),
        _token_probabilities(model.tokenizer, behind, of_next),
        math.exp(float(of_next.sum())) if len(behind.input_ids) else None,
        [TokenProbability(token(id), probability) for id, probability in alternatives],
    )


def _pieces_to_score(model: LoadedModel, text: Any, next_word: str | None) -> tuple[Pieces, Pieces]:
    """The pieces of the text, and those of the word behind it. Raises UserError for empty ones and too long a text."""
    if next_word is not None and (not isinstance(next_word, str) or not is_unicode(next_word)):
        raise UserError(f"{option('next')} {next_word!a}: expected a word")
    pieces = model.tokenizer.encode(text, special_tokens=False)
    behind = model.tokenizer.encode(next_word or "", special_tokens=False)
    if not len(pieces.input_ids):
        raise UserError("the text is empty; give some words to score")
    if next_word is not None and not len(behind.input_ids):
        raise UserError(f"{option('next')} is empty; give the word whose probability is wanted")
    # a masked model is asked for at least one piece behind the text
    needed, table = len(pieces.input_ids) + max(1, len(behind.input_ids)) + 2, model.config.max_sequence_length
    if needed > table:
        raise UserError(f"the text is {needed:,} tokens long; the position table has {table:,} rows")
    return pieces, behind


def _token_probabilities(tokenizer: Tokenizer, pieces: Pieces, logs: Tensor) -> list[TokenProbability]:
    both = zip(pieces.input_ids.tolist(), logs.tolist(), strict=True)
    return [TokenProbability(tokenizer.token(id), math.exp(log)) for id, log in both]


@torch.inference_mode()
def _score_causal(model: LoadedModel, text: Pieces, behind: Pieces) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the text's pieces `[T]` and of the pieces behind it, and the probabilities `[V]` of every
    piece to come right behind the text; all float64."""
    ids = np.concatenate([[model.tokenizer.cls_id], text.input_ids, behind.input_ids])
    logits = model.model(pack_sequences([(ids, np.zeros_like(ids))]).to(model.device)).logits.double().cpu()
    logs = logits.log_softmax(-1)
    scored = logs[:-1].gather(1, torch.from_numpy(ids[1:])[:, None])[:, 0]
    cut = len(text.input_ids)
    return scored[:cut], scored[cut:], logs[cut].exp()


def _score_masked(model: LoadedModel, text: Pieces, behind: Pieces) -> tuple[Tensor, Tensor, Tensor]:
    """As `_score_causal`, but each piece sees both sides; pieces behind the text see later ones as masks only."""
    tokenizer = model.tokenizer
    cut = len(text.input_ids)
    both = np.concatenate([text.input_ids, behind.input_ids])
    with_mask = np.append(text.input_ids, tokenizer.mask_id)
    of_text = _masked_logs(model, [_masked(tokenizer, text.input_ids, _rest_of_word(text, n)) for n in range(cut)])
    of_next = _masked_logs(model, [_masked(tokenizer, both, slice(n, len(both))) for n in range(cut, len(both))])
    following = _masked_logs(model, [_masked(tokenizer, with_mask, slice(cut, cut + 1))])[0]

    def at(ids: np.ndarray, logs: Tensor) -> Tensor:
        return logs.gather(1, torch.from_numpy(ids)[:, None])[:, 0] if len(ids) else logs.new_zeros(0)

    return at(text.input_ids, of_text), at(behind.input_ids, of_next), following.exp()


def _rest_of_word(pieces: Pieces, number: int) -> slice:
    """A piece and the later pieces of its word."""
    end = int(np.searchsorted(pieces.word_ids, pieces.word_ids[number], side="right"))
    return slice(number, end)


def _masked(tokenizer: Tokenizer, ids: np.ndarray, masked: slice) -> Encoded:
    """A sequence with some of its pieces masked. Target `first_mask`: the token of the first of them."""
    shown = ids.copy()
    shown[masked] = tokenizer.mask_id
    nothing = np.zeros((len(ids), 2), dtype=np.int64)
    sequence = assemble(tokenizer, [Pieces(shown, nothing, nothing[:, 0])], row=0)
    return replace(sequence, targets={"first_mask": np.array(len(tokenizer.template.prefix) + masked.start)})


def _masked_logs(model: LoadedModel, sequences: Sequence[Encoded]) -> Tensor:
    """Log-probabilities of every piece at each sequence's first mask, float64 `[sequences, V]`."""

    def collate(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        lengths = np.array([len(sequence.input_ids) for sequence in encoded])
        begins = np.cumsum(lengths) - lengths
        return {"mlm_index": begins + np.array([sequence.targets["first_mask"] for sequence in encoded])}

    def split(scores: object, encoded: Sequence[Encoded], batch: PackedBatch) -> list[Tensor]:
        return list(scores.mlm.logits.double().cpu().log_softmax(-1))  # type: ignore[attr-defined]

    found = engine.run_batches(model.model, split, sequences, model.device, collate=collate)
    return torch.stack(found) if found else torch.zeros(0, model.config.vocab_size, dtype=torch.float64)


def suggest_words(model: LoadedModel, prompts: Texts, top_k: int) -> Any:
    """The `top_k` words that a causal model finds likeliest behind a prompt, of which it reads the end only where it is
    long; of many prompts a list each. Raises UserError for an empty prompt, and for a model that reads both ways."""
    require_causal(model, "suggest")
    require_count(top_k=top_k)
    asked = model.asked(prompts, "suggest", pairs=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # the next word depends on the end of the prompt only
        ids = prompt_ids(model, asked.texts, GenerationOptions(max_tokens=MAX_WORD_PIECES), "left")
    last = model.config.max_sequence_length - 1 - MAX_WORD_PIECES
    ends = [np.append(of_prompt[0], of_prompt[1:][-last:]) for of_prompt in ids]
    return asked.given([_likeliest_words(model, end, top_k) for end in ends])


@torch.inference_mode()
def _likeliest_words(model: LoadedModel, prompt: np.ndarray, top_k: int) -> list[Suggestion]:
    """The likeliest words behind a prompt (ids with `[SOS]`): beginnings of words, followed piece by piece."""
    tokenizer = model.tokenizer
    is_word = torch.tensor([_is_word(tokenizer.token(id)) for id in range(tokenizer.vocab_size)], device=model.device)
    continues = torch.from_numpy(tokenizer.continuations()).to(model.device)
    more = model.config.vocab_size - tokenizer.vocab_size  # rows of the token table without a piece
    is_word, continues = F.pad(is_word, (0, more)), F.pad(continues, (0, more))
    decoding = Decoding(model.for_generation, [prompt], MAX_WORD_PIECES)
    first = decoding.logits[0].float().softmax(-1) * (is_word & ~continues)
    reached, ids = first.topk(min(max(BEAM_WORDS, top_k), int(is_word.sum())))
    decoding.select(torch.zeros(len(ids), dtype=torch.long, device=model.device))
    words = [[id] for id in ids.tolist()]
    found: list[Suggestion] = []
    for _ in range(MAX_WORD_PIECES):
        decoding.append(ids)
        going_on = decoding.logits.float().softmax(-1) * continues
        ends = reached * (1 - going_on.sum(-1))
        found += [Suggestion(tokenizer.decode(word), p) for word, p in zip(words, ends.tolist(), strict=True)]
        reached, index = (reached[:, None] * going_on).flatten().topk(len(ids))
        of_word, ids = index // len(first), index % len(first)
        words = [[*words[n], id] for n, id in zip(of_word.tolist(), ids.tolist(), strict=True)]
        decoding.select(of_word)
    return sorted(found, key=lambda suggestion: -suggestion.probability)[:top_k]


def _is_word(token: str) -> bool:
    """Whether a piece has a letter or a digit and is no special token."""
    return any(character.isalnum() for character in token) and not (token.startswith("[") and token.endswith("]"))


def require_causal(model: LoadedModel, verb: str) -> None:
    """Raises UserError for a model that was not trained from left to right."""
    if "causal-LM" not in model.model.head.abilities or not model.config.is_decoder:
        masked = "masked-LM" in model.model.head.abilities
        advice = " (`fill` completes masks, `score` scores texts both ways)" if masked else ""
        raise UserError(
            f"{model.checkpoint.source}: {verb} needs a model trained from left to right (pretrained with "
            f"{option('objective', 'causal')}); this one reads both ways{advice}"
            f"{shipped_hint(verb)}"
        )
    model.require_trained(verb)
