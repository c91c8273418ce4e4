"""What models answer: texts, places and numbers exact, probabilities to 1e-4."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bothways as bw
from tests.nets.golden import FIXTURES, check_values

TEXTS = [
    "No light on my router since this morning",
    "I was charged twice for the family plan in May, please send one back.",
    "ß",
    "The app stops as soon as I open it. " * 8,  # longer than the model reads
]
PAIRS = [("The wifi is slow.", "Our internet is slow at night."), ("A red light.", "Where is my bill? " * 12)]
CONTEXT = (FIXTURES / "corpus.txt").read_text(encoding="utf-8").split("\n\n")[0].replace("\n", " ")
PROMPTS = ["The router shows a", "please", "Steady amber shows that the router is switched on but cannot reach our"]


def _load(models: Path, name: str) -> bw.Predictor:
    return bw.load(models / name, device="cpu", precision="float32")


def _rows(name: str, count: int) -> list[dict[str, Any]]:
    lines = (FIXTURES / "rows" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def facts(models: Path) -> Any:
    """What is said of each model itself."""
    found = {}
    for path in sorted(models.iterdir()):
        model = _load(models, path.name)
        assert model.report is not None
        told = {"labels": model.labels, "sequence_length": model.sequence_length, "vocabulary": model.config.vocab_size}
        found[path.name] = {**told, "report": model.report.sentence(), "precision": model.precision}
    return found


def masked(models: Path) -> Any:
    """Both heads that know masked tokens."""
    found: dict[str, Any] = {}
    for name in ("pretraining", "masked"):
        model = _load(models, name)
        found[name] = {
            "fill": [
                model.fill("The [MASK] shows a red [MASK]."),
                model.fill(("A [MASK] light.", "Call us."), top_k=2),
            ],
            "score": [model.score("The router is red"), model.score("The router", next="restarts", top_k=2)],
        }
    model = _load(models, "pretraining")
    return {**found, "next_sentence": [model.next_sentence(a, b[:60]) for a, b in PAIRS]}


def hidden(models: Path) -> Any:
    """Last hidden states of single texts and of a pair, and of other activations and one segment type."""
    found = {name: _load(models, name).hidden_states(["Red light", "a"]) for name in ("masked", "encoder", "causal")}
    return {**found, "pretraining": _load(models, "pretraining").hidden_states(["Red light", ("a", "pair")])}


def classify(models: Path) -> Any:
    found = {name: _load(models, name).classify(TEXTS) for name in ("classify", "several", "regression")}
    foreign = _load(models, "foreign-classifier").classify([*PAIRS, *TEXTS[:2]])
    by_rows = _load(models, "pairs").predict(_rows("pair-labels.jsonl", 4))
    return {**found, "pairs": _load(models, "pairs").classify(PAIRS), "foreign": foreign, "rows": by_rows}


def answer(models: Path) -> Any:
    """Long contexts are read in windows."""
    model = _load(models, "answer")
    questions = ["What does a steady white light mean?", "Who?"]
    found = [_two_more(model.answer(one, CONTEXT)) for one in questions]
    sure = [_two_more(model.answer(one, CONTEXT, no_answer=False)) for one in questions]
    rows = [_two_more(one) for one in model.predict(_rows("questions.jsonl", 3))]
    return {"answers": found, "of answers only": sure, "rows": rows}


def _two_more(found: bw.Answer) -> Any:
    """With the first two of its alternatives, and how many there are."""
    return [replace(found, alternatives=found.alternatives[:2]), len(found.alternatives)]


def tag(models: Path) -> Any:
    return {
        "entities": _load(models, "tag").tag(TEXTS),
        "words": _load(models, "words").tag("The Router stopped at once"),
        "rows": _load(models, "words").predict(_rows("words.jsonl", 2)),
    }


def choose(models: Path) -> Any:
    model = _load(models, "choose")
    choices = ["A bill is wrong.", "A box is broken.", "A program fails."]
    return {
        "choices": [model.choose(text, choices) for text in TEXTS],
        "rows": model.predict(_rows("choices.jsonl", 3)),
    }


def vectors(models: Path) -> Any:
    found = {name: _load(models, name).embed(TEXTS) for name in ("similar", "similar-cls", "pretraining")}
    plain = _load(models, "similar").embed(["a text"], normalize=False)
    return {**found, "not normalised": plain, "similar": _load(models, "similar").similar(TEXTS[0], TEXTS, top_k=3)}


def language(models: Path) -> Any:
    """A model that reads from left to right: what it draws hangs on prompt, seed and place alone."""
    model = _load(models, "causal")
    shaped = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2, "seed": 7}
    return {
        "greedy": model.generate(PROMPTS, greedy=True, max_tokens=12),
        "drawn": model.generate(PROMPTS, max_tokens=20),
        "shaped": model.generate(PROMPTS[0], max_tokens=20, samples=3, **shaped),
        "streamed": list(model.stream(PROMPTS[1], max_tokens=12, seed=1)),
        "cut": model.generate(" ".join(PROMPTS * 2), truncate="left", max_tokens=3),
        "score": [model.score("The router shows a red", next="light", top_k=3), model.score("a")],
        "suggest": [model.suggest("The router shows a"), model.suggest(" ".join(PROMPTS * 2), top_k=1)],
    }


def chat(models: Path) -> Any:
    model = _load(models, "instruct")
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "No light?"}]
    longer = [*talk, {"role": "assistant", "content": "Which?"}, {"role": "user", "content": "On my router"}]
    return {
        "greedy": [model.chat(one, greedy=True, max_tokens=10) for one in ("My router has no light", talk, longer)],
        "drawn": model.chat(talk, seed=5, max_tokens=20),
    }


def explain(models: Path) -> Any:
    """Names, shapes and texts of a page's data, of each kind of decision."""
    asked: dict[str, Any] = {"pretraining": "A [MASK] light", "classify": "No light", "tag": "No light"}
    found = {name: _load(models, name).explain(text).data for name, text in asked.items()}
    found["answer"] = _load(models, "answer").explain(("What is red?", "The light")).data
    found["causal"] = _load(models, "causal").explain("The light").data
    others = {"others": ["My light is red."], "word": "light", "anchors": ["bill"]}
    found["with others"] = _load(models, "similar").explain("A red light", **others).data
    for data in found.values():
        data["model"] = {**data["model"], "name": "", "head": ""}  # a path, and the name of a class
    return {name: _outline(data, exact=name == "pretraining") for name, data in found.items()}


def _outline(value: Any, exact: bool) -> Any:
    """A value without its fractions: packed arrays are their shape, lists of like things how many there are. exact:
    with texts and whole numbers as they are."""
    if isinstance(value, dict):
        if {"shape", "data"} <= set(value):
            return f"{'|'.join(value)} {value['shape']}"
        return {key: _outline(one, exact) for key, one in value.items()}
    if isinstance(value, list | tuple):
        outlines = [_outline(one, exact) for one in value]
        same = len(outlines) > 1 and all(one == outlines[0] for one in outlines)
        return [f"{len(outlines)} times", outlines[0]] if same else outlines
    if isinstance(value, float):
        return "number"
    return value if exact or value is None else {str: "text", int: "whole number", bool: "yes or no"}[type(value)]


QUESTIONS: dict[str, Callable[[Path], Any]] = {
    one.__name__: one
    for one in (facts, masked, hidden, classify, answer, tag, choose, vectors, language, chat, explain)
}


@pytest.mark.filterwarnings("ignore")  # texts are cut short, and say so
@pytest.mark.parametrize("name", QUESTIONS)
def test_models_answer_as_they_did(models: Path, name: str) -> None:
    check_values(f"predictions/{name}.json", QUESTIONS[name](models), "predictions")
