"""What a language model can be asked: how a text goes on, how likely it is, which words may follow.

Shapes: T tokens of a text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bothways.checkpoint.shipped import shipped_hint
from bothways.errors import (
    TruncationWarning,
    UserError,
    collected_warnings,
    option,
    warn_at_caller,
    warn_truncated,
)
from bothways.inference.engine import Question
from bothways.inference.generation import Decoding, Generation, Step, ask_generation, steps_told
from bothways.inference.generation_options import GenerationOptions
from bothways.inference.texts import Texts
from bothways.option_checks import require_count
from bothways.tasks.results import Result
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

PROMPTS_AT_ONCE = 32  # prompts that are continued in one batch; bounds the memory of the cache
BEAM_WORDS = 12  # beginnings of words that `suggest_words` follows at least; chosen by hand
MAX_WORD_PIECES = 5  # of a suggested word: longer words are not suggested; chosen by hand


@dataclass(frozen=True, repr=False)
class Suggestion(Result):
    """A word that may come next. probability: of all its pieces, and that the word ends with them."""

    word: str
    probability: float


@dataclass(frozen=True)
class Continuation:
    """How a prompt goes on. ended: whether at `[EOS]`, else at `max_tokens` or where the position table ends.
    prompt_tokens, tokens: how many there are of each."""

    text: str
    ended: bool
    prompt_tokens: int
    tokens: int


def continue_prompts(
    model: LoadedModel, prompts: Texts, options: GenerationOptions, truncate: str | None = None
) -> Question[Any]:
    """The continuation of a prompt; of several prompts a list. With several `samples` each is a list of its samples.

    Raises UserError for an empty or too long prompt, and for a model that reads both ways.
    """
    require_causal(model, "generate")
    asked = model.asked(prompts, "generate", pairs=False)
    continuations = yield from ask_continuations(model, prompt_ids(model, asked.texts, options, truncate), options)
    texts = [[sample.text for sample in samples] for samples in continuations]
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


def ask_steps(
    model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions, tell: Callable[[Step], None]
) -> Question[None]:
    """Tells the steps in which tokens come behind prompts (ids with `[SOS]`). Warns where the position table ends a
    text."""
    tokenizer, table = model.tokenizer, model.config.max_sequence_length
    lengths: dict[tuple[int, int], int] = {}  # tokens generated so far, by prompt and sample
    ended: set[tuple[int, int]] = set()
    generation = Generation(
        model.for_generation, prompts, options, end_id=tokenizer.sep_id, never=tokenizer.suppressed_ids
    )

    def count(step: Step) -> None:
        for text, token in zip(step.texts, step.tokens, strict=True):
            lengths[text] = lengths.get(text, 0) + 1
            if token == tokenizer.sep_id:
                ended.add(text)
        tell(step)

    yield from ask_generation(generation, count)
    cut = [text for text, length in lengths.items() if text not in ended and length < options.max_tokens]
    if cut:
        message = f"{len(cut):,} texts end where the position table does, at {table:,} tokens"
        warn_truncated(message)


def generate_steps(model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions) -> Iterator[Step]:
    """As `ask_steps`, each step as it is made here and now."""
    return steps_told(lambda tell: ask_steps(model, prompts, options, tell))


def ask_continuations(
    model: LoadedModel, prompts: Sequence[np.ndarray], options: GenerationOptions
) -> Question[list[list[Continuation]]]:
    """For each prompt (ids with `[SOS]`), in order, its samples. Prompts of similar length are continued together."""
    tokenizer = model.tokenizer
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    made: list[list[Continuation]] = [[] for _ in prompts]
    for start in range(0, len(order), PROMPTS_AT_ONCE):
        chosen = order[start : start + PROMPTS_AT_ONCE]
        ids: dict[tuple[int, int], list[int]] = {(n, sample): [] for n in chosen for sample in range(options.samples)}

        def keep(step: Step, ids: dict[tuple[int, int], list[int]] = ids, chosen: list[int] = chosen) -> None:
            for (prompt, sample), token in zip(step.texts, step.tokens, strict=True):
                ids[chosen[prompt], sample].append(token)

        yield from ask_steps(model, [prompts[n] for n in chosen], options, keep)
        for (n, _), of_sample in ids.items():
            ended = bool(of_sample) and of_sample[-1] == tokenizer.sep_id
            text = "".join(text_pieces(tokenizer, of_sample))
            made[n].append(Continuation(text, ended, len(prompts[n]), len(of_sample)))
    return made


def text_pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text that each token adds, with its blank and without `[EOS]`; joined they are the continuation."""
    yield from tokenizer.text_pieces(id for id in ids if id != tokenizer.sep_id)


def suggest_words(model: LoadedModel, prompts: Texts, top_k: int) -> Question[Any]:
    """The `top_k` words that a causal model finds likeliest behind a prompt, of which it reads the end only where it is
    long; of many prompts a list each. Raises UserError for an empty prompt, and for a model that reads both ways."""
    require_causal(model, "suggest")
    require_count(top_k=top_k)
    asked = model.asked(prompts, "suggest", pairs=False)
    said: list[tuple[type[Warning], str]] = []
    with collected_warnings(said):
        ids = prompt_ids(model, asked.texts, GenerationOptions(max_tokens=MAX_WORD_PIECES), "left")
    for category, message in said:
        if category is not TruncationWarning:  # the next word depends on the end of the prompt only
            warn_at_caller(message, category)
    last = model.config.max_sequence_length - 1 - MAX_WORD_PIECES
    ends = [np.append(of_prompt[0], of_prompt[1:][-last:]) for of_prompt in ids]
    found = []
    for end in ends:
        found.append((yield from _ask_likeliest_words(model, end, top_k)))
    return asked.given(found)


def _ask_likeliest_words(model: LoadedModel, prompt: np.ndarray, top_k: int) -> Question[list[Suggestion]]:
    """The likeliest words behind a prompt (ids with `[SOS]`): beginnings of words, followed piece by piece."""
    tokenizer, (is_word, continues) = model.tokenizer, model.word_pieces
    decoding = Decoding(model.for_generation, [prompt], MAX_WORD_PIECES)
    (logits,) = yield decoding.read_prompts()
    first = logits.float().softmax(-1) * (is_word & ~continues)
    reached, ids = first.topk(min(max(BEAM_WORDS, top_k), int(is_word.sum())))
    decoding.select([0] * len(ids))
    words = [[id] for id in ids.tolist()]
    found: list[Suggestion] = []
    for _ in range(MAX_WORD_PIECES):
        behind = yield decoding.append(ids.tolist())
        going_on = torch.stack(behind).float().softmax(-1) * continues
        ends = reached * (1 - going_on.sum(-1))
        found += [Suggestion(tokenizer.decode(word), p) for word, p in zip(words, ends.tolist(), strict=True)]
        reached, index = (reached[:, None] * going_on).flatten().topk(len(ids))
        of_word, ids = index // len(first), index % len(first)
        words = [[*words[n], id] for n, id in zip(of_word.tolist(), ids.tolist(), strict=True)]
        decoding.select(of_word.tolist())
    return sorted(found, key=lambda suggestion: -suggestion.probability)[:top_k]


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
