"""The one object of `bw.load(...)`: a loaded model and everything that it can be asked.

Shapes: T_i tokens of text i, N texts, H hidden, E numbers of a vector, V vocabulary.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from torch import Tensor

from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.checkpoint.shipped import shipped_for
from bothways.explain.page_data import page_data
from bothways.inference import language, masked, predict, reranking, scoring, vectors
from bothways.inference.chat import reply_to
from bothways.inference.engine import complete
from bothways.inference.generation_options import generation_options
from bothways.inference.language import Suggestion
from bothways.inference.loaded import LoadedModel, describe_model
from bothways.inference.masked import Fill
from bothways.inference.reranking import Ranked
from bothways.inference.scoring import TextScore
from bothways.inference.texts import Text, Texts
from bothways.inference.vectors import Match
from bothways.option_checks import require_type
from bothways.pages.explanation import Explanation
from bothways.precision import InferencePrecision
from bothways.progress import LOGGER, OnProgress, no_progress
from bothways.tasks.answer import Answer
from bothways.tasks.base import Task
from bothways.tasks.choose import Choice
from bothways.tasks.entities import Entity


class Predictor(LoadedModel):
    """One model, ready to answer. Texts may be pairs `(a, b)`; none is padded, and none changes another's result.

    One rule for one and many, in every method: a text, or a pair, gives a result; a list of them gives a list, as does
    an array, a Series, a generator, or a table (pandas, polars, pyarrow), of which the columns of the fine-tuning are
    read, else `text`. A model that was fine-tuned on single texts refuses pairs.

    A model can be asked what it was fine-tuned for (`classify`, `answer`, `tag`, `choose`); every model gives vectors
    (`embed`, `similar`). Texts longer than the model reads are read in windows (`answer`, `tag`) or lose their end, of
    which a `TruncationWarning` tells. Of texts that the vocabulary cannot read an `UnknownTokensWarning` tells.
    """

    def __repr__(self) -> str:
        return f"Predictor({', '.join(describe_model(self).values())})"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in describe_model(self).items()
        )
        return f"<table>{cells}</table>"

    def predict(
        self, rows: str | Path | Iterable[Any], task: Task | None = None, on_progress: OnProgress = no_progress
    ) -> list[Any]:
        """One prediction for each row of a table, of the kind that the model's task makes (`Classification`, `Answer`,
        …). Columns are those of the fine-tuning, labels are not needed.

        rows: a file, dictionaries, or a table of pandas, polars or pyarrow. on_progress: called with the sequences
        done."""
        return complete(predict.predict_rows(self, rows, task, on_progress))

    @overload
    def classify(self, texts: Text, on_progress: OnProgress = ...) -> Any: ...
    @overload
    def classify(self, texts: Texts, on_progress: OnProgress = ...) -> list[Any]: ...
    def classify(self, texts: Texts, on_progress: OnProgress = no_progress) -> Any:
        """A `Classification`, `MultiClassification` or `Regression` for each text, by what the model was trained for.

        Raises UserError for pairs where it was fine-tuned on single texts, and the other way round."""
        return complete(predict.classify_texts(self, texts, on_progress))

    @overload
    def answer(
        self, question: str, context: str, no_answer: bool | None = ..., on_progress: OnProgress = ...
    ) -> Answer: ...
    @overload
    def answer(
        self, question: Texts, context: Texts, no_answer: bool | None = ..., on_progress: OnProgress = ...
    ) -> list[Answer]: ...
    def answer(
        self, question: Texts, context: Texts, no_answer: bool | None = None, on_progress: OnProgress = no_progress
    ) -> Any:
        """Where in the context the question is answered, in characters, or that it is not. Many questions have one
        context or as many; one question may have many contexts.

        no_answer: whether there may be none; by default where the model was trained on such questions, and for one that
        was trained elsewhere, of which that is not known.
        """
        return complete(predict.find_answers(self, question, context, no_answer, on_progress))

    @overload
    def tag(self, texts: str, on_progress: OnProgress = ...) -> list[Entity]: ...
    @overload
    def tag(self, texts: Texts, on_progress: OnProgress = ...) -> list[list[Entity]]: ...
    def tag(self, texts: Texts, on_progress: OnProgress = no_progress) -> Any:
        """The entities of each text; of a model that labels every word, all words."""
        return complete(predict.tag_texts(self, texts, on_progress))

    @overload
    def choose(self, text: str, choices: Sequence[str], on_progress: OnProgress = ...) -> Choice: ...
    @overload
    def choose(
        self, text: Texts, choices: Sequence[str] | Sequence[Sequence[str]], on_progress: OnProgress = ...
    ) -> list[Choice]: ...
    def choose(self, text: Texts, choices: Sequence[Any], on_progress: OnProgress = no_progress) -> Any:
        """Which of the choices goes with the text. Of many texts all have the same choices, or each a list of its
        own."""
        return complete(predict.choose_continuations(self, text, choices, on_progress))

    def embed(
        self,
        texts: Texts,
        normalize: bool = True,
        on_progress: OnProgress = no_progress,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> np.ndarray:
        """A vector for each text, float32 `[N, E]`, of a text alone `[E]`; of length one with `normalize`.

        Pooling, and what stands behind it, is what the model was trained with; of a model that was not trained for
        vectors, the mean over tokens. prompt_name, prompt: what stands before each text: a prompt of the model, or this
        text; by default the model's default prompt. Raises UserError for a name that the model does not have.
        """
        chosen = vectors.chosen_prompt(self, prompt_name, prompt)
        return complete(vectors.embed_texts(self, texts, normalize, on_progress, chosen))

    @overload
    def similar(
        self,
        query: str,
        texts: Texts,
        top_k: int = ...,
        on_progress: OnProgress = ...,
        *,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
    ) -> list[Match]: ...
    @overload
    def similar(
        self,
        query: Texts,
        texts: Texts,
        top_k: int = ...,
        on_progress: OnProgress = ...,
        *,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
    ) -> list[list[Match]]: ...
    def similar(
        self,
        query: Texts,
        texts: Texts,
        top_k: int = 5,
        on_progress: OnProgress = no_progress,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Any:
        """The `top_k` texts that are most like the query, most alike first; of many queries a list each.

        prompt_name, prompt: what stands before query and texts alike, as of `embed`; by default the model's prompts for
        queries ("query") and for what is searched ("document", "passage" or "corpus"), else its default prompt.
        """
        prompts = (prompt_name, prompt)
        return complete(vectors.similar_texts(self, query, texts, top_k, on_progress, prompts=prompts))

    @overload
    def rerank(
        self,
        query: str,
        texts: Texts,
        top_k: int | None = ...,
        *,
        label: str | None = ...,
        on_progress: OnProgress = ...,
    ) -> list[Ranked]: ...
    @overload
    def rerank(
        self,
        query: Texts,
        texts: Texts,
        top_k: int | None = ...,
        *,
        label: str | None = ...,
        on_progress: OnProgress = ...,
    ) -> list[list[Ranked]]: ...
    def rerank(
        self,
        query: Texts,
        texts: Texts,
        top_k: int | None = None,
        *,
        label: str | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Any:
        """The texts in the order in which a classifier or regressor of pairs, a cross-encoder, finds them to go with
        the query, the best first; of many queries a list each.

        label: of a classifier, whose probability orders them; by default the label of pairs that go together.
        Raises UserError for a model of single texts, and for labels that do not tell which is meant.
        """
        return complete(reranking.rerank_texts(self, query, texts, top_k, label, on_progress))

    @overload
    def hidden_states(self, texts: Text) -> Tensor: ...
    @overload
    def hidden_states(self, texts: Texts) -> list[Tensor]: ...
    def hidden_states(self, texts: Texts) -> Any:
        """The last layer's hidden states, float32 `[T_i, H]` for each text, `[CLS]` and `[SEP]` included.

        Raises UserError for a text of more tokens than the position table has rows.
        """
        return vectors.hidden_states(self, texts)

    @overload
    def fill(self, text: Text, top_k: int = ...) -> list[list[Fill]]: ...
    @overload
    def fill(self, text: Texts, top_k: int = ...) -> list[list[list[Fill]]]: ...
    def fill(self, text: Texts, top_k: int = 5) -> Any:
        """For each `[MASK]` in the text, in order, the `top_k` likeliest pieces.

        Raises UserError for a text without a mask and for a model without a masked-LM head.
        """
        return complete(masked.fill_masks(self, text, top_k))

    @overload
    def next_sentence(self, a: str, b: str) -> float: ...
    @overload
    def next_sentence(self, a: Texts, b: Texts) -> list[float]: ...
    def next_sentence(self, a: Texts, b: Texts) -> Any:
        """The probability that `b` follows `a` (`next_sentence_label` 0). Of many texts one may go with all others."""
        return complete(masked.next_sentence_probabilities(self, a, b))

    @overload
    def generate(
        self, prompt: str, *, samples: Literal[1] = ..., truncate: Literal["left"] | None = ..., **options: Any
    ) -> str: ...
    @overload
    def generate(self, prompt: Texts, *, truncate: Literal["left"] | None = ..., **options: Any) -> list[Any]: ...
    def generate(self, prompt: Texts, *, truncate: Literal["left"] | None = None, **options: Any) -> Any:
        """How a causal model goes on: the continuation of a prompt, which `prompt + continuation` reads as one text.

        Of many prompts a list, of many `samples` a list for each. options: those of `GenerationOptions`
        (`max_tokens`, `greedy`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `samples`, `seed`).
        truncate: "left" lets a prompt that is too long lose its beginning.
        Raises UserError for an empty or too long prompt, and for a model that reads both ways.
        """
        return complete(language.continue_prompts(self, prompt, generation_options(options), truncate))

    def stream(self, prompt: str, *, truncate: Literal["left"] | None = None, **options: Any) -> Iterator[str]:
        """As `generate` for one prompt and one sample, piece by piece as they are made."""
        return language.stream_text(self, prompt, generation_options(options), truncate)

    @overload
    def score(self, text: str, next: str | None = ..., top_k: int = ...) -> TextScore: ...
    @overload
    def score(self, text: Texts, next: str | None = ..., top_k: int = ...) -> list[TextScore]: ...
    def score(self, text: Texts, next: str | None = None, top_k: int = 5) -> Any:
        """How likely a text is: by a causal model from left to right, by a masked one with each word masked in turn.

        next: a word, of which P(next | text) is wanted. top_k: how many pieces that may come next to tell.
        """
        return complete(scoring.score_texts(self, text, next, top_k))

    @overload
    def suggest(self, prompt: str, top_k: int = ...) -> list[Suggestion]: ...
    @overload
    def suggest(self, prompt: Texts, top_k: int = ...) -> list[list[Suggestion]]: ...
    def suggest(self, prompt: Texts, top_k: int = 3) -> Any:
        """The words that a causal model finds likeliest behind a prompt, as a telephone's keyboard shows them."""
        return complete(language.suggest_words(self, prompt, top_k))

    def chat(self, messages: str | Sequence[Mapping[str, str]], **options: Any) -> str:
        """The reply to a conversation: a list of {role, content} that ends with the user's, or what the user says.

        options: as of `generate`. Of a conversation too long for the model the oldest turns are not read.
        Raises UserError for roles out of order, and for a model that was not fine-tuned for `instruct`.
        """
        return reply_to(self, messages, generation_options(options))

    @overload
    def explain(self, text: Text, **options: Any) -> Explanation: ...
    @overload
    def explain(self, text: Texts, **options: Any) -> list[Explanation]: ...
    def explain(self, text: Texts, **options: Any) -> Any:
        """Attention, embeddings, positions and predictions of a text or pair, to be looked at: shows itself in a
        notebook, `write("page.html")` makes a page. options: `others`, `word`, `anchors`, `projection`, as
        `explain.page_data.page_data` has them."""
        asked = self.asked(text, "explain")
        for name in ("others", "anchors"):
            beside = options.get(name, ())
            options[name] = self.asked(list(beside) if isinstance(beside, tuple) else beside, name, pairs=False).texts
        if options.get("word") is not None:
            require_type("word", options["word"], str)
            self.asked([options["word"]], "word", pairs=False)
        self.encode_whole_texts(asked.texts)  # refuses what is too long, warns of what the vocabulary cannot read
        return asked.given([Explanation(page_data(self, checked, **options)) for checked in asked.texts])


def load(
    path_or_hub_id: str | Path | None = None,
    device: str = "auto",
    precision: InferencePrecision = "auto",
    calibrate: str | Path | None = None,
) -> Predictor:
    """Open a model from a directory, a run's directory, the shipped models by name, or the hub; without any name the
    shipped encoder, which fills masks.

    precision: of predictions, vectors and generation; `auto` is bfloat16 where the hardware multiplies it, else
    float32. What explains and scores is in float32; the answer on an explained page is `answer`'s.
    calibrate: a table or a .txt of texts on which int8 is compared with float32, in place of packaged ones; the
    model's `agreement` says how near it came.
    Raises UserError where it is none of them, or its parts do not fit together.
    """
    if path_or_hub_id is None:
        path_or_hub_id = shipped_for("fill").name
        LOGGER.info("model: %s (shipped)", path_or_hub_id)
    return Predictor(load_checkpoint(path_or_hub_id), device, precision, calibrate)
