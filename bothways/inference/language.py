"""What a language model can be asked: how a text goes on, how likely it is, which words may follow.

Shapes: V vocabulary.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bothways.batch import PackedBatch, pack_sequences
from bothways.data.encoded import Encoded, assemble
from bothways.errors import TruncationWarning, UserError
from bothways.inference import engine
from bothways.inference.generation import Decoding, Step, generate
from bothways.inference.sampling import GenerationOptions
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Pieces, Tokenizer

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

PROMPTS_AT_ONCE = 32  # prompts that grow at the same time
BEAM, LONGEST_WORD = 12, 5  # beginnings of words that `suggest` follows at least, and pieces a word may have


@dataclass(frozen=True)
class TokenProbability:
    """A piece and the probability that it stands at its place: at a `[MASK]`, in a text, or behind one."""

    token: str
    probability: float


@dataclass(frozen=True)
class TextScore:
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


@dataclass(frozen=True)
class Suggestion:
    """A word that may come next, and its probability: of its pieces, and that the word ends with them."""

    word: str
    probability: float


def prompt_ids(
    model: LoadedModel, prompts: Sequence[str], options: GenerationOptions, truncate: str | None
) -> list[np.ndarray]:
    """Prompts as ids behind `[SOS]`. Raises UserError for an empty one, and for one that leaves no room to go on in,
    unless `truncate` is "left": then it loses its beginning, of which a `TruncationWarning` tells."""
    if truncate not in (None, "left"):
        raise UserError(f"--truncate {truncate}: accepted: left")
    for number, prompt in enumerate(prompts, 1):
        if not isinstance(prompt, str) or not is_unicode(prompt):
            raise UserError(f"prompt {number}: expected a string, found {prompt!a}")
    pieces = model.tokenizer.encode_batch(list(prompts), special_tokens=False)
    ids = [one.input_ids for one in pieces]
    for number, one in enumerate(ids, 1):
        if not len(one):
            raise UserError(f"prompt {number} is empty; give a word or two to begin with")
    return [np.append(model.tokenizer.cls_id, one) for one in fitting(model, ids, options, truncate)]


def fitting(
    model: LoadedModel, ids: Sequence[np.ndarray], options: GenerationOptions, truncate: str | None
) -> list[np.ndarray]:
    """The ids of texts that have `[SOS]` yet to come before them, short enough to go on from."""
    table = model.config.max_position_embeddings
    kept = table - 1 - min(options.max_tokens, table // 2)
    long = [one for one in ids if len(one) > table - 2]
    if not long:
        return list(ids)
    if truncate is None:
        raise UserError(
            f"the prompt is {len(long[0]):,} tokens long; the position table has {table:,} rows, which leaves no room "
            "to go on; --truncate left reads its end only"
        )
    message = f"{len(long):,} prompts are longer than the position table ({table:,} rows) and lost their beginning"
    warnings.warn(message, TruncationWarning, stacklevel=4)
    return [one[-kept:] if len(one) > table - 2 else one for one in ids]


def grow(model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions) -> Iterator[Step]:
    """Tokens behind prompts, a step at a time. Warns where the position table ended a text."""
    tokenizer, table = model.tokenizer, model.config.max_position_embeddings
    never = tokenizer.suppressed_ids
    lengths: dict[tuple[int, int], int] = {}
    ended: set[tuple[int, int]] = set()
    for step in generate(model.for_generation, prompts, options, end_id=tokenizer.sep_id, never=never):
        for text, token in zip(step.texts, step.tokens, strict=True):
            lengths[text] = lengths.get(text, 0) + 1
            ended |= {text} if token == tokenizer.sep_id else set()
        yield step
    cut = [text for text, length in lengths.items() if text not in ended and length < options.max_tokens]
    if cut:
        message = f"{len(cut):,} texts end where the position table does, at {table:,} tokens"
        warnings.warn(message, TruncationWarning, stacklevel=3)


def continuations(model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions) -> list[list[str]]:
    """For each prompt, in order, its samples: what comes behind it, with the blank that it begins with."""
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    texts: list[list[str]] = [[] for _ in prompts]
    for start in range(0, len(order), PROMPTS_AT_ONCE):
        chosen = order[start : start + PROMPTS_AT_ONCE]
        grown: dict[tuple[int, int], list[int]] = {(n, sample): [] for n in chosen for sample in range(options.samples)}
        for step in grow(model, [prompts[n] for n in chosen], options):
            for (prompt, sample), token in zip(step.texts, step.tokens, strict=True):
                grown[chosen[prompt], sample].append(token)
        for (n, _), ids in grown.items():
            texts[n].append("".join(pieces_of(model.tokenizer, ids)))
    return texts


def pieces_of(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text that each token adds, with its blank and without `[EOS]`; joined they are the continuation."""
    for id in ids:
        if id != tokenizer.sep_id:
            # a first token has no blank before it, so each is read behind another
            yield tokenizer.decode([tokenizer.sep_id, id]).removeprefix(tokenizer.token(tokenizer.sep_id))


def score_text(model: LoadedModel, text: str, next_word: str | None, top_k: int) -> TextScore:
    """The score of a text by a causal model, token by token from the left; by a masked one its pseudo-log-likelihood
    (Salazar et al. 2020), each piece masked together with the later ones of its word (Kauf and Ivanova 2023)."""
    if next_word is not None and (not isinstance(next_word, str) or not is_unicode(next_word)):
        raise UserError(f"--next {next_word!a}: expected a word")
    pieces, behind = (model.tokenizer.encode(one, special_tokens=False) for one in (text, next_word or ""))
    if not len(pieces.input_ids):
        raise UserError("the text is empty; give some words to score")
    if next_word is not None and not len(behind.input_ids):
        raise UserError("--next is empty; give the word whose probability is wanted")
    # a masked model is asked for at least one piece behind the text
    needed, table = len(pieces.input_ids) + max(1, len(behind.input_ids)) + 2, model.config.max_position_embeddings
    if needed > table:
        raise UserError(f"the text is {needed:,} tokens long; the position table has {table:,} rows")
    by_model = _score_causal if "causal-LM" in model.model.head.abilities else _score_masked
    of_text, of_next, following = by_model(model, pieces, behind)
    values, ids = following.topk(min(top_k, len(following)))
    token = model.tokenizer.token
    return TextScore(
        float(of_text.sum()),
        math.exp(min(-float(of_text.mean()), 700)),
        [
            TokenProbability(token(i), math.exp(p))
            for i, p in zip(pieces.input_ids.tolist(), of_text.tolist(), strict=True)
        ],
        [
            TokenProbability(token(i), math.exp(p))
            for i, p in zip(behind.input_ids.tolist(), of_next.tolist(), strict=True)
        ],
        None if next_word is None else math.exp(float(of_next.sum())),
        [TokenProbability(token(i), p) for i, p in zip(ids.tolist(), values.tolist(), strict=True)],
    )


@torch.inference_mode()
def _score_causal(model: LoadedModel, text: Pieces, behind: Pieces) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the text's pieces and of those behind it, and the distribution `[V]` between the two."""
    ids = np.concatenate([[model.tokenizer.cls_id], text.input_ids, behind.input_ids])
    logits = model.model(pack_sequences([(ids, np.zeros_like(ids))]).to(model.device)).logits.double().cpu()
    logs = logits.log_softmax(-1)
    scored = logs[:-1].gather(1, torch.from_numpy(ids[1:])[:, None])[:, 0]
    cut = len(text.input_ids)
    return scored[:cut], scored[cut:], logs[cut].exp()


def _score_masked(model: LoadedModel, text: Pieces, behind: Pieces) -> tuple[Tensor, Tensor, Tensor]:
    """As `_score_causal`, from both sides; the words behind the text see each other's places as masks only."""
    tokenizer = model.tokenizer
    mask = np.full(1, tokenizer.mask_id)
    of_text = _masked_logs(
        model, [_hidden(tokenizer, text.input_ids, _rest_of_word(text, n)) for n in range(len(text.input_ids))]
    )
    both = np.concatenate([text.input_ids, behind.input_ids])
    cut = len(text.input_ids)
    of_next = _masked_logs(model, [_hidden(tokenizer, both, slice(n, len(both))) for n in range(cut, len(both))])
    following = _masked_logs(model, [_hidden(tokenizer, np.append(text.input_ids, mask), slice(cut, cut + 1))])[0]

    def of(logs: Tensor, ids: np.ndarray) -> Tensor:
        return logs.gather(1, torch.from_numpy(ids)[:, None])[:, 0] if len(ids) else logs.new_zeros(0)

    return of(of_text, text.input_ids), of(of_next, behind.input_ids), following.exp()


def _rest_of_word(pieces: Pieces, number: int) -> slice:
    end = int(np.searchsorted(pieces.word_ids, pieces.word_ids[number], side="right"))
    return slice(number, end)


def _hidden(tokenizer: Tokenizer, ids: np.ndarray, masked: slice) -> Encoded:
    """A sequence with some of its pieces masked; target `row`: where the first of them stands."""
    shown = ids.copy()
    shown[masked] = tokenizer.mask_id
    nothing = np.zeros((len(ids), 2), dtype=np.int64)
    one = assemble(tokenizer, [Pieces(shown, nothing, nothing[:, 0])], row=0)
    return replace(one, targets={"row": np.array(1 + masked.start)})


def _masked_logs(model: LoadedModel, sequences: Sequence[Encoded]) -> Tensor:
    """Log-probabilities `[sequences, V]` float64 at each sequence's `row`."""

    def collate(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        lengths = np.array([len(one.input_ids) for one in encoded])
        return {"mlm_index": np.cumsum(lengths) - lengths + np.array([one.targets["row"] for one in encoded])}

    def split(scores: object, encoded: Sequence[Encoded], batch: PackedBatch) -> list[Tensor]:
        return list(scores.mlm.logits.double().cpu().log_softmax(-1))  # type: ignore[attr-defined]

    found = engine.run_batches(model.model, split, sequences, model.device, collate=collate)
    return torch.stack(found) if found else torch.zeros(0, model.config.vocab_size, dtype=torch.float64)


@torch.inference_mode()
def suggest_words(model: LoadedModel, prompt: np.ndarray, top_k: int) -> list[Suggestion]:
    """The likeliest words behind a prompt (ids with `[SOS]`): beginnings of words, followed piece by piece."""
    tokenizer = model.tokenizer
    continues = torch.from_numpy(tokenizer.continuations()).to(model.device)
    words = torch.tensor([_is_word(tokenizer.token(id)) for id in range(tokenizer.vocab_size)], device=model.device)
    words = torch.nn.functional.pad(words, (0, model.config.vocab_size - len(words)))
    continues = torch.nn.functional.pad(continues, (0, model.config.vocab_size - len(continues)))
    decoding = Decoding(model.for_generation, [prompt], LONGEST_WORD)
    distribution = decoding.logits[0].float().softmax(-1) * (words & ~continues)
    reached, ids = distribution.topk(min(max(BEAM, top_k), int(words.sum())))
    decoding.select(torch.zeros(len(ids), dtype=torch.long, device=model.device))
    begun = [[id] for id in ids.tolist()]
    found: list[Suggestion] = []
    for _ in range(LONGEST_WORD):
        decoding.append(ids)
        going_on = decoding.logits.float().softmax(-1) * continues
        ends = reached * (1 - going_on.sum(-1))
        found += [Suggestion(tokenizer.decode(word), p) for word, p in zip(begun, ends.tolist(), strict=True)]
        reached, places = (reached[:, None] * going_on).flatten().topk(len(ids))
        rows, ids = places // len(distribution), places % len(distribution)
        begun = [[*begun[row], id] for row, id in zip(rows.tolist(), ids.tolist(), strict=True)]
        decoding.select(rows)
    return sorted(found, key=lambda one: -one.probability)[:top_k]


def _is_word(token: str) -> bool:
    return any(character.isalnum() for character in token) and not (token.startswith("[") and token.endswith("]"))


def require_causal(model: LoadedModel, verb: str) -> None:
    """Raises UserError for a model that was not trained from left to right."""
    if "causal-LM" not in model.model.head.abilities or not model.config.is_decoder:
        masked = "masked-LM" in model.model.head.abilities
        advice = " (`fill` completes masks, `score` scores texts both ways)" if masked else ""
        raise UserError(
            f"{model.checkpoint.source}: {verb} needs a model trained from left to right (`bothways pretrain "
            f"--objective causal`); this one reads both ways{advice}"
        )
    model.require_trained(verb)
