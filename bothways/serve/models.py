"""The models of a server: what each is called, and which verbs it can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.checkpoint.shipped import INSTALL, shipped_models
from bothways.errors import UserError, closest, option
from bothways.inference.loaded import describe_model
from bothways.predictor import Predictor
from bothways.serve.failures import RequestError

WARM_TEXT = "a text to warm up with"
NAMED_BY_DIRECTORY = ("model", "epoch-best")  # a run's model directory, which is named by its run


@dataclass(frozen=True)
class ServedModel:
    """A model under its name. verbs: what it can be asked."""

    name: str
    predictor: Predictor
    verbs: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """What it is, for `/v1/models` and the page."""
        model = self.predictor
        return {
            "name": self.name,
            **{name: text for name, text in describe_model(model).items() if name != "model"},
            "labels": model.labels,
            "sequence_length": model.sequence_length,
            "reads_pairs": model.reads_pairs,
            "mask_token": model.tokenizer.token(model.tokenizer.mask_id) if "fill" in self.verbs else None,
            "verbs": list(self.verbs),
        }

    def warm_up(self) -> None:
        """Lay out the model for this machine, and read a text, so that the first request does not wait for it."""
        self.predictor.embed(WARM_TEXT)
        if "fill" in self.verbs:
            self.predictor.fill(self.predictor.tokenizer.token(self.predictor.tokenizer.mask_id))
        if "generate" in self.verbs:
            self.predictor.generate("a", max_tokens=1)


def named_models(models: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """What is to be loaded, by the names that requests use; the shipped models where nothing is named. models:
    directories, shipped models or hub ids. names: `NAME=MODEL`.

    Raises UserError for a name that is none, two models of one name, and nothing to serve.
    """
    pairs = [(_name_of(model), model) for model in models]
    for given in names:
        name, equals, directory = given.partition("=")
        if not equals or not name.strip() or not directory.strip() or "/" in name:
            raise UserError(f"{option('name', given)}: expected NAME=MODEL, support=runs/tickets say")
        pairs.append((name.strip(), directory.strip()))
    found: dict[str, str] = {}
    for name, model in pairs:
        if name in found:
            cure = f"{option('name', 'NAME=MODEL')} gives another name"
            raise UserError(f"two models are called {name!r}: {found[name]} and {model}; {cure}")
        found[name] = model
    if not found:
        found = {name: name for name in shipped_models()}
    if not found:
        named = f"name one, or several, as {option('name', 'NAME=MODEL')} or by directory"
        raise UserError(
            f"serve: no model is named, and the shipped models are not installed: {INSTALL} installs them; or {named}"
        )
    return found


def _name_of(model: str) -> str:
    path = Path(model).absolute()
    return path.parent.name if path.name in NAMED_BY_DIRECTORY else path.name


def served_model(name: str, predictor: Predictor) -> ServedModel:
    """A loaded model with the verbs that it can answer."""
    metadata, head = predictor.checkpoint.metadata, predictor.model.head
    task, trained = metadata.get("task"), not (predictor.report and predictor.report.newly_initialised)
    causal = "causal-LM" in head.abilities and predictor.config.is_decoder
    able = {
        "fill": "masked-LM" in head.abilities and trained,
        "next_sentence": "next-sentence" in head.abilities and trained,
        **{verb: task == verb and trained for verb in ("classify", "tag", "answer", "choose")},
        "rerank": task == "classify" and trained and predictor.reads_pairs is not False,
        "generate": causal and trained,
        "chat": causal and trained and task == "instruct",
        "score": "language-model" in head.abilities and trained,
        "suggest": causal and trained,
        "embed": True,
        "similar": True,
        "explain": True,
        "tokenize": True,
    }
    return ServedModel(name, predictor, tuple(verb for verb, can in able.items() if can))


def model_for(models: Mapping[str, ServedModel], name: str | None, verb: str) -> ServedModel:
    """The model that is meant; without a name the only one that can answer the verb.

    Raises RequestError for a name that there is not, for a model of another verb, and where the name is needed.
    """
    able = [model for model in models.values() if verb in model.verbs]
    if name is None:
        if len(able) == 1:
            return able[0]
        choice = f"one of {', '.join(model.name for model in able)}" if able else f"no model here can {verb}"
        raise RequestError("invalid", f"model: expected {choice}", "model")
    if name not in models:
        near = closest(name, models)
        raise RequestError("model_not_found", f"no model {name!r}{near}; here are {', '.join(models)}", "model")
    if verb not in models[name].verbs:
        can = ", ".join(models[name].verbs)
        raise RequestError("wrong_model", f"{name} cannot {verb}; it can {can}", "model")
    return models[name]
