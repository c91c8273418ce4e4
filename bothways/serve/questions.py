"""What can be asked, verb by verb, as questions whose passes the engine runs beside those of others.

They are those of `inference/`, so answers are the Predictor's. A text in the making asks for a forward pass a token, so
it shares its steps with the others that are made, and nobody waits for a whole text. What `inference/` does not batch,
explanations, has the engine alone, a text at a time.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways.inference import engine, language, masked, predict, reranking, scoring, vectors
from bothways.inference.chat import reply_prompt
from bothways.inference.engine import Question
from bothways.inference.generation import Step
from bothways.inference.generation_options import GenerationOptions, generation_options
from bothways.inference.language import Continuation, prompt_ids, require_causal
from bothways.inference.texts import rows_of
from bothways.predictor import Predictor
from bothways.progress import no_progress
from bothways.serve.inquiries import Alone, ServedQuestion

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
    return masked.fill_masks(model, text, top_k)


def ask_next_sentence(model: Predictor, a: Any, b: Any) -> ServedQuestion:
    """As `Predictor.next_sentence`."""
    return masked.next_sentence_probabilities(model, a, b)


def ask_score(model: Predictor, text: Any, next: str | None = None, top_k: int = 5) -> ServedQuestion:
    """As `Predictor.score`."""
    return scoring.score_texts(model, text, next, top_k)


def ask_suggestions(model: Predictor, prompt: Any, top_k: int = 3) -> ServedQuestion:
    """As `Predictor.suggest`."""
    return language.suggest_words(model, prompt, top_k)


def ask_explanation(model: Predictor, text: Any, **options: Any) -> ServedQuestion:
    """The data of the page that `Predictor.explain` makes."""
    asked = model.asked(text, "explain")
    found = []
    for part in asked.texts:
        found.append((yield Alone(functools.partial(_explanation, model, part, options), _cost(part))))
    return asked.given(found)


def _explanation(model: Predictor, text: Any, options: Mapping[str, Any]) -> Any:
    return model.explain(text, **options).data


def _cost(text: Any) -> int:
    """Tokens of a text or pair, about."""
    return 1 + sum(map(len, [text] if isinstance(text, str) else text)) // CHARACTERS_PER_TOKEN


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


@dataclass(frozen=True)
class Piece:
    """What a token adds to a text, and what else was likely there: (token, probability), likeliest first."""

    text: str
    probability: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


def ask_generate(model: Predictor, prompt: Any, truncate: bool = False, **options: Any) -> ServedQuestion:
    """As `Predictor.generate`."""
    return language.continue_prompts(model, prompt, generation_options(options), "left" if truncate else None)


def ask_completions(
    model: Predictor, prompts: Sequence[str], options: GenerationOptions
) -> Question[list[list[Continuation]]]:
    """For each prompt its samples."""
    require_causal(model, "generate")
    return (yield from language.ask_continuations(model, prompt_ids(model, prompts, options, None), options))


def ask_stream(
    model: Predictor, prompt: str, emit: Emit, options: GenerationOptions, truncate: bool = False, alternatives: int = 0
) -> Question[Continuation]:
    """How one prompt goes on; each `Piece` is emitted when it is made. alternatives: how many to tell."""
    require_causal(model, "generate")
    (ids,) = prompt_ids(model, [prompt], options, "left" if truncate else None)
    made = _Made(model, emit, alternatives)
    yield from language.ask_steps(model, [ids], options, made.add)
    return made.whole(len(ids))


def ask_chat(model: Predictor, messages: Any, **options: Any) -> ServedQuestion:
    """As `Predictor.chat`."""
    reply = yield from ask_reply(model, messages, generation_options(options))
    return reply.text


def ask_reply(
    model: Predictor, messages: Any, options: GenerationOptions, emit: Emit = lambda piece: None
) -> Question[Continuation]:
    """The reply to a conversation; each `Piece` is emitted when it is made."""
    ids = reply_prompt(model, messages, options)
    made = _Made(model, emit, is_reply=True)
    yield from language.ask_steps(model, [ids], options, made.add)
    return made.whole(len(ids))


class _Made:
    """A text in the making, whose pieces are emitted. is_reply: whether the blank before its first word is left out,
    which belongs to running text."""

    def __init__(self, model: Predictor, emit: Emit, alternatives: int = 0, is_reply: bool = False) -> None:
        self._tokenizer, self._emit, self._alternatives, self._is_reply = model.tokenizer, emit, alternatives, is_reply
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._new: deque[int] = deque()
        self._pieces = language.text_pieces(model.tokenizer, iter(self._new.popleft, None))

    def add(self, step: Step) -> None:
        """The next token, the step's first."""
        (id, *_) = step.tokens
        self._ids.append(id)
        if id == self._tokenizer.sep_id:
            return
        self._new.append(id)
        text = next(self._pieces)
        self._texts.append(text.lstrip() if self._is_reply and not self._texts else text)
        if not self._alternatives:
            self._emit(Piece(self._texts[-1]))
            return
        likely = step.likeliest(self._alternatives)[0]
        others = tuple((self._tokenizer.token(id), probability) for id, probability in likely)
        self._emit(Piece(self._texts[-1], step.probabilities()[0], others))

    def whole(self, prompt_tokens: int) -> Continuation:
        ended = bool(self._ids) and self._ids[-1] == self._tokenizer.sep_id
        return Continuation("".join(self._texts), ended, prompt_tokens, len(self._ids))
