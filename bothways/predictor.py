"""The one object of `bw.load(...)`: a loaded model and everything that it can be asked.

Shapes: T_i tokens of text i, N texts, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.data.tables import Row
from bothways.explain.page_data import page_data
from bothways.inference import language, masked, predict, vectors
from bothways.inference.chat import reply_to
from bothways.inference.language import Suggestion, TextScore
from bothways.inference.loaded import LoadedModel
from bothways.inference.masked import Fill
from bothways.inference.sampling import generation_options
from bothways.inference.texts import Text, listed_texts
from bothways.inference.vectors import Match
from bothways.option_checks import require_type
from bothways.pages.explanation import Explanation
from bothways.precision import InferencePrecision
from bothways.progress import OnProgress, no_progress
from bothways.tasks.answer import Answer
from bothways.tasks.base import Task
from bothways.tasks.choose import Choice
from bothways.tasks.entities import Entity


class Predictor(LoadedModel):
    """One model, ready to answer. Texts may be pairs `(a, b)`; none is padded, and none changes another's result.

    A model can be asked what it was fine-tuned for (`classify`, `answer`, `tag`, `choose`); every model gives vectors
    (`embed`, `similar`). Texts longer than the model reads are read in windows (`answer`, `tag`) or lose their end, of
    which a `TruncationWarning` tells.
    """

    def predict(
        self,
        rows: str | Path | Iterable[Mapping[str, Any]] | Sequence[Row],
        task: Task | None = None,
        on_progress: OnProgress = no_progress,
    ) -> list[Any]:
        """One prediction for each row of a table, of the kind that the model's task makes (`Classification`, `Answer`,
        …). Columns are those of the fine-tuning, labels are not needed. on_progress: called with the sequences done."""
        return predict.predict_rows(self, rows, task, on_progress)

    def classify(self, texts: Text | Sequence[Text], on_progress: OnProgress = no_progress) -> list[Any]:
        """A `Classification`, `MultiClassification` or `Regression` for each text, by what the model was trained
        for."""
        return predict.classify_texts(self, texts, on_progress)

    def answer(self, question: str, context: str, no_answer: bool | None = None) -> Answer:
        """Where in the context the question is answered, in characters, or that it is not.

        no_answer: whether there may be none; by default where the model was trained on such questions, and for one that
        was trained elsewhere, of which that is not known.
        """
        return predict.answer_question(self, question, context, no_answer)

    def tag(
        self, texts: str | Sequence[str], on_progress: OnProgress = no_progress
    ) -> list[Entity] | list[list[Entity]]:
        """The entities of a text, or of each of several; of a model that labels every word, all words."""
        found = predict.tag_texts(self, texts, on_progress)
        return found[0] if isinstance(texts, str) else found

    def choose(self, text: str, choices: Sequence[str]) -> Choice:
        """Which of the choices goes with the text."""
        return predict.choose_continuation(self, text, choices)

    def embed(
        self, texts: str | Sequence[str], normalize: bool = True, on_progress: OnProgress = no_progress
    ) -> np.ndarray:
        """A vector for each text, float32 `[N, H]`, of length one with `normalize`.

        Pooling is what the model was trained with; of a model that was not trained for vectors, the mean over tokens.
        """
        return vectors.embed_texts(self, texts, normalize, on_progress)

    def similar(
        self, query: str, texts: Sequence[str], top_k: int = 5, on_progress: OnProgress = no_progress
    ) -> list[Match]:
        """The `top_k` texts that are most like the query, most alike first."""
        return vectors.similar_texts(self, query, texts, top_k, on_progress)

    def hidden_states(self, texts: Text | Sequence[Text]) -> list[Tensor]:
        """The last layer's hidden states, float32 `[T_i, H]` for each text, `[CLS]` and `[SEP]` included.

        Raises UserError for a text of more tokens than the position table has rows.
        """
        return vectors.hidden_states(self, texts)

    def fill(self, text: Text, top_k: int = 5) -> list[list[Fill]]:
        """For each `[MASK]` in the text, in order, the `top_k` likeliest pieces.

        Raises UserError for a text without a mask and for a model without a masked-LM head.
        """
        return masked.fill_masks(self, text, top_k)

    def next_sentence(self, a: str, b: str) -> float:
        """The probability that `b` follows `a` (`next_sentence_label` 0)."""
        return masked.next_sentence_probability(self, a, b)

    def generate(
        self, prompt: str | Sequence[str], *, truncate: Literal["left"] | None = None, **options: Any
    ) -> str | list[Any]:
        """How a causal model goes on: the continuation of a prompt, which `prompt + continuation` reads as one text.

        Of several prompts a list, of several `samples` a list for each. options: those of `GenerationOptions`
        (`max_tokens`, `greedy`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `samples`, `seed`).
        truncate: "left" lets a prompt that is too long lose its beginning.
        Raises UserError for an empty or too long prompt, and for a model that reads both ways.
        """
        return language.continue_prompts(self, prompt, generation_options(options), truncate)

    def stream(self, prompt: str, *, truncate: Literal["left"] | None = None, **options: Any) -> Iterator[str]:
        """As `generate` for one prompt and one sample, piece by piece as they are made."""
        return language.stream_text(self, prompt, generation_options(options), truncate)

    def score(self, text: str, next: str | None = None, top_k: int = 5) -> TextScore:
        """How likely a text is: by a causal model from left to right, by a masked one with each word masked in turn.

        next: a word, of which P(next | text) is wanted. top_k: how many pieces that may come next to tell.
        """
        return language.score_text(self, text, next, top_k)

    def suggest(self, prompt: str, top_k: int = 3) -> list[Suggestion]:
        """The words that a causal model finds likeliest behind a prompt, as a telephone's keyboard shows them."""
        return language.suggest_words(self, prompt, top_k)

    def chat(self, messages: str | Sequence[Mapping[str, str]], **options: Any) -> str:
        """The reply to a conversation: a list of {role, content} that ends with the user's, or what the user says.

        options: as of `generate`. Of a conversation too long for the model the oldest turns are not read.
        Raises UserError for roles out of order, and for a model that was not fine-tuned for `instruct`.
        """
        return reply_to(self, messages, generation_options(options))

    def explain(self, text: Text, **options: Any) -> Explanation:
        """Attention, embeddings, positions and predictions of one text or pair, to be looked at: shows itself in a
        notebook, `write("page.html")` makes a page. options: `others`, `word`, `anchors`, `projection`, as
        `explain.page_data.page_data` has them."""
        (checked,) = self.checked_texts([text])
        for name in ("others", "anchors"):
            options[name] = self.checked_texts(listed_texts(options.get(name, ())))
        if options.get("word") is not None:
            require_type("word", options["word"], str)
            self.checked_texts([options["word"]])
        return Explanation(page_data(self, checked, **options))


def load(path_or_hub_id: str | Path, device: str = "auto", precision: InferencePrecision = "auto") -> Predictor:
    """Open a model from a directory, a run's directory, or the hub.

    precision: of predictions and vectors; `auto` is bfloat16 where the hardware multiplies it, else float32. What
    explains, scores and generates is in float32; the answer on an explained page is `answer`'s.
    Raises UserError where it is none of them, or its parts do not fit together.
    """
    return Predictor(load_checkpoint(path_or_hub_id), device, precision)
