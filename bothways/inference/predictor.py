"""A loaded model and what it can be asked: `bw.load(...)`.

Shapes: T_i tokens of text i, N texts, H hidden, V vocabulary.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from torch import Tensor

from bothways.data.packing import PackedBatch
from bothways.data.tables import Row, read_rows
from bothways.errors import TruncationWarning, UserError
from bothways.inference import engine, language, masked
from bothways.inference.language import Fill, Suggestion, TextScore
from bothways.inference.prepared import Precision, prepare, prepare_to_generate, resolve
from bothways.inference.sampling import GenerationOptions, generation_options
from bothways.inference.texts import Text, are_rows, columns_of_text, listed_texts, rows_of, several
from bothways.model.checkpoint import Checkpoint, LoadReport, load_checkpoint
from bothways.model.config import BertConfig
from bothways.model.heads import Bert, CausalLMHead, EmbeddingHead, Head, MaskedLMHead, PretrainingHead
from bothways.tasks import TASKS
from bothways.tasks.answer import Answer
from bothways.tasks.base import Encoded, Task, join_segments
from bothways.tasks.choose import Choice
from bothways.tasks.classify import ClassifyTask
from bothways.tasks.instruct import check_turns
from bothways.tasks.tag import Entity
from bothways.text.lines import is_unicode
from bothways.text.wordpiece import WordPieceTokenizer
from bothways.train.options import choose_device

if TYPE_CHECKING:
    from bothways.explain.page import Explanation

OnProgress = Callable[[int], None]


def silently(done: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Match:
    """A text, its number among those asked (from 0), and the cosine of its vector with the query's."""

    text: str
    index: int
    cosine: float


class Predictor:
    """One model, ready to answer. Texts may be pairs `(a, b)`; none is padded, and none changes another's result.

    What a model was fine-tuned for it can be asked (`classify`, `answer`, `tag`, `choose`); any can give vectors
    (`embed`, `similar`). Texts longer than the model reads are read in windows (`answer`, `tag`) or lose their end, of
    which a `TruncationWarning` tells.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", precision: Precision = "auto") -> None:
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self.precision = resolve(precision, self.device)
        self.model = checkpoint.model.to(self.device).eval()

    @property
    def config(self) -> BertConfig:
        return self.checkpoint.config

    @property
    def tokenizer(self) -> WordPieceTokenizer:
        return self.checkpoint.tokenizer

    @functools.cached_property
    def prepared(self) -> Bert:
        """The model as predictions and vectors are made with it: in this predictor's precision."""
        return prepare(self.model, self.precision)

    @functools.cached_property
    def exact(self) -> Bert:
        """The model as generation runs it: in float32."""
        return prepare_to_generate(self.model)

    @property
    def report(self) -> LoadReport | None:
        """What became of every tensor in the file."""
        return self.checkpoint.report

    @property
    def labels(self) -> list[str]:
        """The labels of a classifier or tagger, in the order of its scores; empty for other models."""
        return list(self.checkpoint.state.get("labels", []))

    @property
    def sequence_length(self) -> int:
        """The tokens a text may have: what the model was fine-tuned with, or the size of its position table."""
        return int(self.checkpoint.state.get("sequence_length", self.config.max_position_embeddings))

    def task(self, name: str | None = None) -> Task:
        """What the model was fine-tuned for. Raises UserError where that is not `name`, or nothing."""
        trained = self.checkpoint.state.get("task")
        if trained not in TASKS or (name is not None and trained != name):
            was = f"was made for {trained}" if trained in TASKS else f"has {type(self.model.head).__name__} and no task"
            wanted = name or "what is asked"
            raise UserError(
                f"{self.checkpoint.source}: {wanted} needs a model fine-tuned for it (`bothways finetune "
                f"{name or 'TASK'}`); this one {was}"
            )
        self.require_trained(trained)
        return TASKS[trained].from_state(self.checkpoint.state)

    def predict(
        self,
        rows: str | Path | Iterable[Mapping[str, Any]] | Sequence[Row],
        task: Task | None = None,
        on_progress: OnProgress = silently,
    ) -> list[Any]:
        """One prediction for each row of a table, of the kind that the model's task makes (`Classification`, `Answer`,
        …). Columns are those of the fine-tuning, labels are not needed. on_progress: called with the sequences done."""
        task = task or self.task()
        listed = rows if are_rows(rows) else read_rows(cast(Any, rows), task.columns(labelled=False))
        return self._in_windows(
            cast("Sequence[Row]", listed),
            lambda part: self.encode(task, part),
            lambda part, encoded, progress: engine.predict(self.prepared, task, encoded, part, progress),
            on_progress,
        )

    def encode(self, task: Task, rows: Sequence[Row]) -> list[Encoded]:
        """Rows as this model reads them. Raises UserError for pairs where it has one segment type."""
        encoded = task.encode(rows, self.tokenizer, self.sequence_length)
        if self.config.type_vocab_size < 2 and any(one.token_type_ids.any() for one in encoded):
            raise UserError(
                f"{self.checkpoint.source}: one segment type only (type_vocab_size 1), it cannot read pairs"
            )
        return encoded

    def classify(self, texts: Text | Sequence[Text], on_progress: OnProgress = silently) -> list[Any]:
        """A `Classification`, `MultiClassification` or `Regression` for each text, by what the model was trained
        for."""
        task = cast(ClassifyTask, self.task("classify"))
        listed = self._checked(texts)
        results: list[Any] = [None] * len(listed)
        for pair in (None, "pair"):
            chosen = [n for n, text in enumerate(listed) if isinstance(text, tuple) == bool(pair)]
            rows = [Row(columns_of_text(listed[n]), f"text {n + 1}") for n in chosen]
            kind = replace(task, options=replace(task.options, text_column="text", pair_column=pair))
            for n, result in zip(chosen, self.predict(rows, kind, on_progress) if rows else [], strict=True):
                results[n] = result
        return results

    def answer(self, question: str, context: str, no_answer: bool | None = None) -> Answer:
        """Where in the context the question is answered, in characters, or that it is not.

        no_answer: whether there may be none; by default where the model was trained on such questions, and for one that
        was trained elsewhere, of which that is not known.
        """
        task: Any = self.task("answer")
        options = replace(task.options, question_column="question", context_column="context")
        task = replace(task, options=options, no_answer=task.no_answer if no_answer is None else no_answer)
        (answer,) = self.predict(rows_of([{"question": question, "context": context}]), task)
        return cast(Answer, answer)

    def tag(self, texts: str | Sequence[str], on_progress: OnProgress = silently) -> list[Entity] | list[list[Entity]]:
        """The entities of a text, or of each of several; of a model that labels every word, all words."""
        task: Any = self.task("tag")
        rows = rows_of([{"text": text} for text in listed_texts(texts)])
        options = replace(task.options, words_column="words", text_column="text")
        predictions = self.predict(rows, replace(task, options=options), on_progress) if rows else []
        found = [one.entities for one in predictions]
        return found[0] if isinstance(texts, str) else found

    def choose(self, text: str, choices: Sequence[str]) -> Choice:
        """Which of the choices goes with the text."""
        task: Any = self.task("choose")
        options = replace(task.options, text_column="text", choices_column="choices", choice_columns=())
        rows = rows_of([{"text": text, "choices": choices}])
        (choice,) = self.predict(rows, replace(task, options=options))
        return cast(Choice, choice)

    def embed(
        self, texts: str | Sequence[str], normalize: bool = True, on_progress: OnProgress = silently
    ) -> np.ndarray:
        """A vector for each text, float32 `[N, H]`, of length one with `normalize`.

        Pooling is what the model was trained with; of a model that was not trained for vectors, the mean over tokens.
        """
        vectors = self._in_windows(
            self._checked(listed_texts(texts)),
            lambda part: join_segments(self.tokenizer, part, self.sequence_length),
            lambda part, encoded, progress: self.vectors(encoded, normalize, progress),
            on_progress,
        )
        return np.array(vectors, dtype=np.float32).reshape(len(vectors), self.config.hidden_size)

    def vectors(
        self, encoded: Sequence[Encoded], normalize: bool = True, on_progress: OnProgress = silently
    ) -> list[np.ndarray]:
        """As `embed`, of texts that are encoded: one vector a sequence, float32 `[H]`."""
        pooling = self.checkpoint.state.get("options", {}).get("pooling", "mean")
        encoder = self.prepared.encoder

        def split(vectors: Tensor, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
            return list(vectors.float().cpu().numpy())

        model = type(self.prepared)(encoder, EmbeddingHead(encoder, pooling, normalize)).eval()
        return engine.run(model, split, encoded, self.device, on_progress=on_progress)

    def similar(
        self, query: str, texts: Sequence[str], top_k: int = 5, on_progress: OnProgress = silently
    ) -> list[Match]:
        """The `top_k` texts that are most like the query, most alike first."""
        if top_k < 1:
            raise UserError(f"--top-k {top_k}: expected at least 1")
        listed = listed_texts(texts)
        cosines = self.embed(listed, on_progress=on_progress) @ self.embed(query)[0]
        best = np.argsort(-cosines, kind="stable")[:top_k]
        return [Match(listed[index], int(index), float(cosines[index])) for index in best]

    def hidden_states(self, texts: Text | Sequence[Text]) -> list[Tensor]:
        """The last layer's hidden states, float32 `[T_i, H]` for each text, `[CLS]` and `[SEP]` included.

        Raises UserError for a text of more tokens than the position table has rows.
        """

        def split(hidden: Tensor, rows: Sequence[Encoded], batch: PackedBatch) -> Sequence[Tensor]:
            return hidden.float().cpu().split(batch.lengths.tolist())

        return engine.run(self.model.encoder, split, self._encode(self._checked(texts)), self.device)

    def fill(self, text: Text, top_k: int = 5) -> list[list[Fill]]:
        """For each `[MASK]` in the text, in order, the `top_k` likeliest pieces.

        Raises UserError for a text without a mask and for a model without a masked-LM head.
        """
        self._require((PretrainingHead, MaskedLMHead), "masked-LM", "fill")
        if top_k < 1:
            raise UserError(f"--top-k {top_k}: expected at least 1")
        (encoded,) = self._encode(self._checked([text]))
        return masked.fill_masks(self, encoded, text, top_k)

    def next_sentence(self, a: str, b: str) -> float:
        """The probability that `b` follows `a` (`next_sentence_label` 0)."""
        self._require((PretrainingHead,), "next-sentence", "next_sentence")
        (encoded,) = self._encode(self._checked([(a, b)]))
        return masked.follows(self, encoded)

    def generate(
        self, prompt: str | Sequence[str], *, truncate: Literal["left"] | None = None, **options: Any
    ) -> str | list[Any]:
        """How a causal model goes on: the continuation of a prompt, which `prompt + continuation` reads as one text.

        Of several prompts a list, of several `samples` a list for each. options: those of `GenerationOptions`
        (`max_tokens`, `greedy`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `samples`, `seed`).
        truncate: "left" lets a prompt that is too long lose its beginning.
        Raises UserError for an empty or too long prompt, and for a model that reads both ways.
        """
        language.require_causal(self, "generate")
        chosen = generation_options(options)
        listed = [prompt] if isinstance(prompt, str) else listed_texts(prompt)
        prompts = language.prompt_ids(self, listed, chosen, truncate)
        texts = language.continuations(self, prompts, chosen)
        each: list[Any] = [samples if chosen.samples > 1 else samples[0] for samples in texts]
        return cast("str | list[Any]", each[0]) if isinstance(prompt, str) else each

    def stream(self, prompt: str, *, truncate: Literal["left"] | None = None, **options: Any) -> Iterator[str]:
        """As `generate` for one prompt and one sample, piece by piece as they are made."""
        language.require_causal(self, "stream")
        chosen = replace(generation_options(options), samples=1)
        prompts = language.prompt_ids(self, [prompt], chosen, truncate)
        return language.pieces_of(self.tokenizer, (step.tokens[0] for step in language.grow(self, prompts, chosen)))

    def score(self, text: str, next: str | None = None, top_k: int = 5) -> TextScore:
        """How likely a text is: by a causal model from left to right, by a masked one with each word masked in turn.

        next: a word, of which P(next | text) is wanted. top_k: how many pieces that may come next to tell.
        """
        self._require((CausalLMHead, PretrainingHead, MaskedLMHead), "language-model", "score")
        if isinstance(self.model.head, CausalLMHead):
            language.require_causal(self, "score")
        if top_k < 1:
            raise UserError(f"--top-k {top_k}: expected at least 1")
        (checked,) = self._checked([text])
        if not isinstance(checked, str):
            raise UserError("score: expected one text, not a pair")
        return language.score_text(self, checked, next, top_k)

    def suggest(self, prompt: str, top_k: int = 3) -> list[Suggestion]:
        """The words that a causal model finds likeliest behind a prompt, as a telephone's keyboard shows them."""
        language.require_causal(self, "suggest")
        if top_k < 1:
            raise UserError(f"--top-k {top_k}: expected at least 1")
        options = GenerationOptions(max_tokens=language.LONGEST_WORD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # what comes next hangs on what was last
            (ids,) = language.prompt_ids(self, [prompt], options, "left")
        last = self.config.max_position_embeddings - 1 - language.LONGEST_WORD
        return language.suggest_words(self, np.append(ids[0], ids[1:][-last:]), top_k)

    def chat(self, messages: str | Sequence[Mapping[str, str]], **options: Any) -> str:
        """The reply to a conversation: a list of {role, content} that ends with the user's, or what the user says.

        options: as of `generate`. Of a conversation too long for the model the oldest turns are not read.
        Raises UserError for roles out of order, and for a model that was not fine-tuned for `instruct`.
        """
        from bothways.inference.chat import Chat

        turns = check_turns([{"role": "user", "content": messages}] if isinstance(messages, str) else messages, "chat")
        if turns[-1][0] != "user":
            raise UserError(f"chat: the last message has the role {turns[-1][0]!r}, expected 'user'")
        chat = Chat(self, turns=turns[:-1])
        return "".join(chat.reply(turns[-1][1], generation_options(options)))

    def explain(self, text: Text, **options: Any) -> Explanation:
        """Attention, embeddings, positions and predictions of one text or pair, to be looked at: shows itself in a
        notebook, `write("page.html")` makes a page. options: `others`, `word`, `anchors`, `projection`, as
        `explain.build.page_data` has them."""
        from bothways.explain.build import page_data
        from bothways.explain.page import Explanation

        (checked,) = self._checked([text])
        for name in ("others", "anchors"):
            options[name] = self._checked(listed_texts(options.get(name, ())))
        if options.get("word") is not None:
            self._checked([options["word"]])
        return Explanation(page_data(self, checked, **options))

    def _encode(self, texts: Sequence[Text]) -> list[Encoded]:
        encoded = join_segments(self.tokenizer, texts, max_length=1 << 30)
        limit = self.config.max_position_embeddings
        for one, text in zip(encoded, texts, strict=True):
            if len(one.input_ids) > limit:
                begin = text if isinstance(text, str) else text[0]
                raise UserError(
                    f"{begin[:40]!r}… is {len(one.input_ids)} tokens long; the position table has {limit} rows"
                )
        return encoded

    def _checked(self, texts: Text | Sequence[Text]) -> list[Text]:
        """The texts as a list. Raises UserError for what is no text, and for pairs where there is one segment type."""
        listed = several(texts)
        for number, text in enumerate(listed, 1):
            parts = text if isinstance(text, tuple) and len(text) == 2 else (text,)
            for part in parts:
                if not isinstance(part, str) or not is_unicode(part):
                    raise UserError(f"text {number}: expected a string or a pair of strings, found {text!a}")
            if len(parts) == 2 and self.config.type_vocab_size < 2:
                raise UserError(f"text {number}: a pair, but this model has one segment type only (type_vocab_size 1)")
        return listed

    def _in_windows(
        self,
        items: Sequence[Any],
        encode: Callable[[Sequence[Any]], list[Encoded]],
        answer: Callable[[Sequence[Any], list[Encoded], OnProgress], list[Any]],
        on_progress: OnProgress,
    ) -> list[Any]:
        """What `answer` makes of the items, a window at a time; warns of those that were cut short."""
        results: list[Any] = []
        done = cut = 0
        for part, encoded in engine.windows(items, encode):
            before = done
            results += answer(part, encoded, lambda sequences: on_progress(before + sequences))  # noqa: B023
            done += len(encoded)
            cut += engine.truncated_rows(encoded)
        if cut:
            number = f"{cut:,} of {len(items):,} texts"
            message = f"{number} are longer than {self.sequence_length} tokens and were cut short"
            warnings.warn(message, TruncationWarning, stacklevel=4)
        return results

    def _require(self, heads: tuple[type[Head], ...], kind: str, verb: str) -> None:
        if not isinstance(self.model.head, heads):
            raise UserError(
                f"{self.checkpoint.source}: {verb} needs a {kind} head; this model has {type(self.model.head).__name__}"
            )
        self.require_trained(verb)

    def require_trained(self, verb: str) -> None:
        """Raises UserError where a part of the model was not in its file."""
        report = self.report
        if report and report.newly_initialised:
            raise UserError(f"{self.checkpoint.source}: {verb} needs trained weights: {report.sentence()}")


def load(path_or_hub_id: str | Path, device: str = "auto", precision: Precision = "auto") -> Predictor:
    """Open a model from a directory, a run's directory, or the hub.

    precision: of predictions and vectors; `auto` is bfloat16 where the hardware multiplies it, else float32. What
    explains, scores and generates is in float32; the answer on an explained page is `answer`'s.
    Raises UserError where it is none of them, or its parts do not fit together.
    """
    return Predictor(load_checkpoint(path_or_hub_id), device, precision)
