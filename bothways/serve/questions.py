"""What can be asked, verb by verb, as questions whose passes the engine runs beside those of others.

They are those of `inference/`, so answers are the Predictor's. What `inference/` does not batch has the engine alone, a
text or some tokens at a time, so that nobody waits for a whole list.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways.inference import engine, language, predict, reranking, vectors
from bothways.inference.chat import conversation_prompt, reply_pieces
from bothways.inference.language import generate_rounds, generate_steps, prompt_ids, require_causal
from bothways.inference.sampling import GenerationOptions, generation_options
from bothways.inference.texts import rows_of
from bothways.predictor import Predictor
from bothways.progress import no_progress
from bothways.serve.inquiries import Alone, ServedQuestion
from bothways.tasks.instruct import check_turns

TURN_SECONDS = 0.02  # of a generation, before others have theirs: a batch of the others takes about as long
CHARACTERS_PER_TOKEN = 4  # about; a cost by which models take turns need not be exact

ask_classify = predict.classify_texts
ask_tag = predict.tag_texts
ask_answer = predict.find_answers
ask_choose = predict.choose_continuations
ask_rerank = reranking.rerank_texts
Emit = Callable[[Any], None]


def ask_embed(
    model: Predictor, texts: Any, normalize: bool = True, prompt_name: str | None = None, prompt: str | None = None
) -> ServedQuestion:
    """As `Predictor.embed`."""
    return vectors.embed_texts(model, texts, normalize, prompt=vectors.chosen_prompt(model, prompt_name, prompt))


def ask_similar(
    model: Predictor,
    query: Any,
    texts: Any,
    top_k: int = 5,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> ServedQuestion:
    """As `Predictor.similar`."""
    return vectors.similar_texts(model, query, texts, top_k, prompts=(prompt_name, prompt))


def ask_fills(model: Predictor, text: Any, top_k: int = 5) -> ServedQuestion:
    """As `Predictor.fill`."""
    return _each(model, "fill", text, lambda part: model.fill(part, top_k))


def ask_score(model: Predictor, text: Any, next: str | None = None, top_k: int = 5) -> ServedQuestion:
    """As `Predictor.score`."""
    return _each(model, "score", text, lambda part: model.score(part, next, top_k))


def ask_suggestions(model: Predictor, prompt: Any, top_k: int = 3) -> ServedQuestion:
    """As `Predictor.suggest`."""
    return _each(model, "suggest", prompt, lambda part: model.suggest(part, top_k))


def ask_explanation(model: Predictor, text: Any, **options: Any) -> ServedQuestion:
    """The data of the page that `Predictor.explain` makes."""
    return _each(model, "explain", text, lambda part: model.explain(part, **options).data)


def ask_pair_logits(model: Predictor, pairs: Sequence[tuple[str, str]]) -> ServedQuestion:
    """The logits of a classifier of pairs, float32 `[pairs, labels]`."""
    task = model.task("classify").with_options(text_column="text", pair_column="pair")
    asked = model.asked(list(pairs), "classify")
    rows = rows_of([{"text": text[0], "pair": text[1]} for text in asked.texts])
    scores = yield from model.run_in_chunks(
        rows,
        lambda chunk: model.encode_rows(task, chunk),
        lambda chunk, encoded, progress: engine.ask_scores(model.for_prediction, task, encoded, progress),
        no_progress,
    )
    return np.array([of_row[0] for of_row in scores])


def ask_next_sentence(model: Predictor, a: Any, b: Any) -> ServedQuestion:
    """As `Predictor.next_sentence`."""
    found = yield Alone(lambda: model.next_sentence(a, b), _cost([a, b]))
    return found


def ask_tokens(model: Predictor, texts: Any) -> ServedQuestion:
    """Of each text, or pair, its tokens as the model reads them: tokens, ids, type ids, and characters of each."""
    yield from ()
    asked = model.asked(texts, "tokenize")
    token = model.tokenizer.token
    return asked.given(
        [
            {
                "tokens": [token(id) for id in sequence.input_ids.tolist()],
                "ids": sequence.input_ids.tolist(),
                "type_ids": sequence.token_type_ids.tolist(),
                "offsets": sequence.offsets.tolist(),
            }
            for sequence in model.encode_whole_texts(asked.texts)
        ]
    )


def _each(model: Predictor, verb: str, texts: Any, call: Callable[[Any], Any]) -> ServedQuestion:
    """`call` for each text, with the engine alone."""
    asked = model.asked(texts, verb)
    found = []
    for text in asked.texts:
        found.append((yield Alone(functools.partial(call, text), _cost(text))))
    return asked.given(found)


def _cost(texts: Any) -> int:
    """Tokens of texts, about."""
    parts = [texts] if isinstance(texts, str) else texts
    characters = sum(len(part) if isinstance(part, str) else sum(map(len, part)) for part in parts)
    return 1 + characters // CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class Continuation:
    """How a prompt goes on. ended: whether at `[EOS]`, else at `max_tokens` or where the position table ends.
    prompt_tokens, tokens: how many there are of each."""

    text: str
    ended: bool
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True)
class Piece:
    """What a token adds to a text, and what else was likely there: (token, probability), likeliest first."""

    text: str
    probability: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


def ask_generate(model: Predictor, prompt: Any, truncate: bool = False, **options: Any) -> ServedQuestion:
    """As `Predictor.generate`."""
    asked = model.asked(prompt, "generate", pairs=False)
    found = yield from ask_continuations(model, list(map(str, asked.texts)), generation_options(options), truncate)
    several = options.get("samples", 1) > 1
    return asked.given([[sample.text for sample in of] if several else of[0].text for of in found])


def ask_continuations(
    model: Predictor, prompts: Sequence[str], options: GenerationOptions, truncate: bool
) -> Generator[Alone, Any, list[list[Continuation]]]:
    """For each prompt its samples."""
    require_causal(model, "generate")
    ids = prompt_ids(model, prompts, options, "left" if truncate else None)
    tokens: dict[tuple[int, int], int] = {}
    ended: set[tuple[int, int]] = set()

    def count(round: Mapping[tuple[int, int], int]) -> None:
        for place, token in round.items():
            tokens[place] = tokens.get(place, 0) + 1
            if token == model.tokenizer.sep_id:
                ended.add(place)

    rounds = generate_rounds(model, ids, options)
    texts = yield from _in_turns(rounds, len(prompts) * options.samples, count)
    return [
        [
            Continuation(text, (n, sample) in ended, len(ids[n]), tokens.get((n, sample), 0))
            for sample, text in enumerate(samples)
        ]
        for n, samples in enumerate(texts)
    ]


def ask_stream(
    model: Predictor, prompt: str, emit: Emit, options: GenerationOptions, truncate: bool = False, alternatives: int = 0
) -> Generator[Alone, Any, Continuation]:
    """How one prompt goes on; each `Piece` is emitted when it is made. alternatives: how many to tell."""
    require_causal(model, "generate")
    (ids,) = prompt_ids(model, [prompt], options, "left" if truncate else None)
    made: list[int] = []
    likely: list[tuple[float, tuple[tuple[str, float], ...]]] = []
    token = model.tokenizer.token

    def tokens() -> Iterator[int]:
        for step in generate_steps(model, [ids], options):
            made.append(step.tokens[0])
            if alternatives:
                others = tuple((token(id), probability) for id, probability in step.likeliest(alternatives)[0])
                likely.append((step.probabilities()[0], others))
            yield step.tokens[0]

    def pieces() -> Iterator[Piece]:
        for text in language.text_pieces(model.tokenizer, tokens()):
            yield Piece(text, *likely[-1]) if likely else Piece(text)

    texts: list[str] = []
    yield from _in_turns(pieces(), 1, _telling(texts, emit))
    return Continuation("".join(texts), bool(made) and made[-1] == model.tokenizer.sep_id, len(ids), len(made))


def ask_chat(model: Predictor, messages: Any, emit: Emit | None = None, **options: Any) -> ServedQuestion:
    """As `Predictor.chat`; each `Piece` is emitted."""
    reply = yield from ask_reply(model, messages, generation_options(options), emit)
    return reply.text


def ask_reply(
    model: Predictor, messages: Any, options: GenerationOptions, emit: Emit | None = None
) -> Generator[Alone, Any, Continuation]:
    """The reply to a conversation."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    prompt = conversation_prompt(model, check_turns(said, "chat"), options)  # says at once which turns are not read
    texts: list[str] = []
    pieces = (Piece(text) for text in reply_pieces(model, messages, options))
    yield from _in_turns(pieces, 1, _telling(texts, emit))
    return Continuation("".join(texts), len(texts) < options.max_tokens, len(prompt), len(texts))


def _telling(texts: list[str], emit: Emit | None) -> Callable[[Piece], None]:
    def tell(piece: Piece) -> None:
        texts.append(piece.text)
        if emit is not None:
            emit(piece)

    return tell


def _in_turns(steps: Iterable[Any], tokens: int, tell: Callable[[Any], None]) -> Generator[Alone, Any, Any]:
    """Run through an iterator, some of its steps whenever it is this request's turn, and give what it returns.

    tokens: of a step. tell: called with what each step gives, behind the turn.
    """
    iterator = iter(steps)
    steps_in_turn = 1
    while True:
        made, ended, value = yield Alone(functools.partial(_turn, iterator), tokens * steps_in_turn)
        for entry in made:
            tell(entry)
        if ended:
            return value
        steps_in_turn = len(made)


def _turn(iterator: Iterator[Any]) -> tuple[list[Any], bool, Any]:
    """Steps for `TURN_SECONDS`, one at least: what they gave, whether that was all, and what was returned then."""
    until = time.monotonic() + TURN_SECONDS
    made: list[Any] = []
    try:
        while not made or time.monotonic() < until:
            made.append(next(iterator))
    except StopIteration as end:
        return made, True, end.value
    return made, False, None
