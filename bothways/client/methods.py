"""The methods of a Predictor as calls to a server; how they are made, now or awaited, is the client's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from bothways.client import results
from bothways.client.calls import Call, listed, same
from bothways.client.results import ReadResult
from bothways.inference.texts import Text, Texts


class RemoteMethods(ABC):
    """Everything that a Predictor can be asked. Results, one text or many, warnings and errors are the Predictor's; of
    an `AsyncClient` they are awaited."""

    @abstractmethod
    def _ask(self, call: Call) -> Any:
        """The result of a call."""

    @abstractmethod
    def _each(self, verb: str, name: str, texts: Any, fields: Mapping[str, Any], read: ReadResult) -> Any:
        """The result of a text, or of each of many; a long list is asked in parts."""

    @abstractmethod
    def _vectors(self, texts: Any, fields: Mapping[str, Any]) -> Any:
        """The vectors of a text or of many."""

    def classify(self, texts: Texts) -> Any:
        """As `Predictor.classify`."""
        return self._each("classify", "texts", texts, {"truncate": True}, results.classification_of)

    def tag(self, texts: Texts) -> Any:
        """As `Predictor.tag`."""
        return self._each("tag", "texts", texts, {"truncate": True}, results.entities_in)

    def answer(self, question: Texts, context: Texts, no_answer: bool | None = None) -> Any:
        """As `Predictor.answer`."""
        (questions, several), (contexts, many) = listed(question), listed(context)
        fields = {"question": questions, "context": contexts, "no_answer": no_answer, "truncate": True}
        return self._ask(Call("answer", fields, results.answer_of, several or many))

    def choose(self, text: Texts, choices: Sequence[Any]) -> Any:
        """As `Predictor.choose`."""
        texts, many = listed(text)
        return self._ask(Call("choose", {"text": texts, "choices": choices, "truncate": True}, results.choice_of, many))

    def embed(
        self, texts: Texts, normalize: bool = True, *, prompt_name: str | None = None, prompt: str | None = None
    ) -> Any:
        """As `Predictor.embed`."""
        before = {"prompt_name": prompt_name, "prompt": prompt}
        return self._vectors(texts, {"normalize": normalize, **before, "encoding_format": "base64", "truncate": True})

    def similar(
        self,
        query: Texts,
        texts: Texts,
        top_k: int = 5,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Any:
        """As `Predictor.similar`."""
        (queries, many), (among, _) = listed(query), listed(texts)
        before = {"prompt_name": prompt_name, "prompt": prompt}
        fields = {"query": queries, "texts": among, "top_k": top_k, **before, "truncate": True}
        return self._ask(Call("similar", fields, results.matches_of, many))

    def rerank(self, query: Texts, texts: Texts, top_k: int | None = None, *, label: str | None = None) -> Any:
        """As `Predictor.rerank`."""
        (queries, many), (among, _) = listed(query), listed(texts)
        fields = {"query": queries, "texts": among, "top_k": top_k, "label": label, "truncate": True}
        return self._ask(Call("rerank", fields, results.ranked_of, many))

    def fill(self, text: Texts, top_k: int = 5) -> Any:
        """As `Predictor.fill`."""
        return self._each("fill", "text", text, {"top_k": top_k}, results.fills_of)

    def next_sentence(self, a: Texts, b: Texts) -> Any:
        """As `Predictor.next_sentence`."""
        (first, several), (second, many) = listed(a), listed(b)
        return self._ask(Call("next_sentence", {"a": first, "b": second}, same, several or many))

    def generate(self, prompt: Texts, *, truncate: str | None = None, **options: Any) -> Any:
        """As `Predictor.generate`."""
        return self._each("generate", "prompt", prompt, {**options, "truncate": truncate == "left"}, same)

    def score(self, text: Texts, next: str | None = None, top_k: int = 5) -> Any:
        """As `Predictor.score`."""
        return self._each("score", "text", text, {"next": next, "top_k": top_k}, results.text_score_of)

    def suggest(self, prompt: Texts, top_k: int = 3) -> Any:
        """As `Predictor.suggest`."""
        return self._each("suggest", "prompt", prompt, {"top_k": top_k}, results.suggestions_of)

    def chat(self, messages: str | Sequence[Mapping[str, str]], **options: Any) -> Any:
        """As `Predictor.chat`."""
        said = messages if isinstance(messages, str) else list(messages)
        return self._ask(Call("chat", {"messages": said, "truncate": True, **options}, same, False))

    def explain(self, text: Text, **options: Any) -> Any:
        """As `Predictor.explain`."""
        texts, many = listed(text)
        beside = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
        return self._ask(Call("explain", {"text": texts, **beside}, results.explanation_of, many))
