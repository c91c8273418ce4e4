"""The shipped models, which come with Bothways: data of the package `bothways-models`, found by name.

The package has no code. `models.json` lists its models in order, and of several that are for a verb the first is used:

    {"mini": {"verbs": ["fill", "finetune"], "about": "one line"}, …}

A model lies in `models/NAME/`, a directory as every model's is, with its card in README.md.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import UserError, command, loading, option
from bothways.files import read_json

PACKAGE = "bothways_models"
TABLE = "models.json"
CARD = "README.md"
INSTALL = "`pip install ./packages/bothways-models` in Bothways' checkout"


@dataclass(frozen=True)
class ShippedModel:
    """A model of the package. verbs: of the command line, for which it is the model that is used where none is named,
    if it is the first in the table that has them."""

    name: str
    directory: Path
    verbs: tuple[str, ...]
    about: str


def shipped_models() -> dict[str, ShippedModel]:
    """All of them by name; none where the package is not installed. Raises UserError for a damaged table."""
    package = _package()
    if package is None or not (table := package / TABLE).exists():
        return {}
    try:
        return {
            name: ShippedModel(name, package / "models" / name, tuple(entry["verbs"]), str(entry["about"]))
            for name, entry in read_json(table).items()
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{table}: a model needs verbs and about: {error}") from error


def _package() -> Path | None:
    """The folder of the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or not spec.submodule_search_locations else Path(spec.submodule_search_locations[0])


def read_card(directory: Path) -> str:
    """What a model's README.md says; nothing where it has none."""
    card = directory / CARD
    return card.read_text(encoding="utf-8") if card.is_file() else ""


def shipped_for(verb: str) -> ShippedModel:
    """The model for a verb where none is named. Raises UserError where there is none, with what to do."""
    models = shipped_models()
    found = _first_for(verb, models)
    if found is not None:
        return found
    named = f"name one by {option('model', 'DIR')}"
    if not models and (package := _package()) is not None:
        raise UserError(f"{verb}: no model is named, and the package of shipped ones, {package}, has none; {named}")
    if not models:
        raise UserError(
            f"{verb}: no model is named, and the shipped models are not installed: {INSTALL} installs them; or {named}"
        )
    raise UserError(
        f"{verb}: no model is named, and none of the shipped ones ({', '.join(models)}) is for it; {named}"
        f"{_how_to_make(verb)}"
    )


def shipped_hint(verb: str) -> str:
    """What an error adds where a model cannot do what it is asked and a shipped one can; else nothing."""
    found = _first_for(verb, shipped_models())
    return "" if found is None else f"; a shipped model can: {loading(found.name)}"


def _first_for(verb: str, models: dict[str, ShippedModel]) -> ShippedModel | None:
    return next((model for model in models.values() if verb in model.verbs), None)


def _how_to_make(verb: str) -> str:
    """How a model for a verb is made by its user."""
    tasks = {"classify": "classify", "rerank": "classify", "chat": "instruct", "answer": "answer", "tag": "tag"}
    return f", made by {command('finetune', tasks[verb])}" if verb in tasks else ""
