"""The card of a shipped model, README.md of its directory: data, cost, how good it is, what it cannot do.

Texts and scores come from a TOML file, cost, settings and the curve from the run's own files:

    about = "one line, for the table of models"
    verbs = ["answer"]                       # that use it where no model is named
    licence = "Apache-2.0; …"
    what = "paragraphs"
    cannot = ["…"]
    watts = 60                               # of the machine under load, for the estimate of energy
    hours = 5.2                              # of all training, where the run is not all of it
    [[data]]                                 # name, amount, licence
    [[scores]]                               # name, value, and note if there is something to say
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bothways.checkpoint.compact import StorageLoss
from bothways.errors import UserError
from bothways.option_checks import require_name, require_type
from bothways.pages.curves import can_draw_curves, curve_svg
from bothways.pages.display_names import display_name

CURVES = ("mlm_loss", "lm_loss", "loss")  # of which the first that a run has is drawn
CURVE_FILE, CURVE_COLOUR = "curve.svg", "#777"  # which is read on light and on dark


@dataclass(frozen=True)
class CardTexts:
    """What the TOML file says; see the module's docstring."""

    about: str
    verbs: list[str]
    licence: str
    what: str
    cannot: list[str]
    data: list[dict[str, Any]]
    scores: list[dict[str, Any]] = field(default_factory=list)
    watts: float = 100.0
    hours: float | None = None


def read_card_texts(path: Path) -> CardTexts:
    """The TOML file. Raises UserError for one that is missing or malformed, and for names and values it cannot have."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    names = [entry.name for entry in fields(CardTexts)]
    for name in given:
        require_name(str(path), name, names)
    missing = [name for name in ("about", "verbs", "licence", "what", "cannot", "data") if name not in given]
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} missing")
    texts = CardTexts(**given)
    for name, hint in {"about": str, "verbs": list[str], "cannot": list[str], "watts": float}.items():
        require_type(f"{path}: {name}", getattr(texts, name), hint)
    return texts


@dataclass(frozen=True)
class Storing:
    """How a model was stored, and what that has cost. figures: of the stored model beside the run's, by name."""

    storage: str
    base: str | None
    loss: StorageLoss
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """metrics: lines of a run's metrics.jsonl, in order; settings: its options. Both may be empty."""

    metrics: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]


def write_card(name: str, directory: Path, texts: CardTexts, training: Training, storing: Storing) -> None:
    """Write README.md, and the curve beside it, into a model's directory."""
    sections = [
        f"# {name}\n\n{texts.what.strip()}",
        f"```\n{_commands(name, texts)}\n```",
        "## Data\n\n" + _table(texts.data, ("name", "amount", "licence")),
        f"## Licence\n\n{texts.licence}",
        "## Training\n\n" + "\n".join(_training(texts, training)),
    ]
    if (curve := _curve(training.metrics)) is not None:
        (directory / CURVE_FILE).write_text(curve, encoding="utf-8")
        sections.append(f"![the loss over training]({CURVE_FILE})")
    if texts.scores:
        sections.append("## Scores\n\n" + _table(texts.scores, ("name", "value", "note")))
    sections.append("## Storage\n\n" + _storage(storing))
    sections.append("## What it cannot do\n\n" + "\n".join(f"- {line}" for line in texts.cannot))
    (directory / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _commands(name: str, texts: CardTexts) -> str:
    return (
        "\n".join(f"bothways {verb} --model {name} …" for verb in texts.verbs) + f'\nbothways.load("{name}")  # Python'
    )


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows)])


def _training(texts: CardTexts, training: Training) -> list[str]:
    """Steps and tokens, hours and energy, settings, held-out figures."""
    metrics = training.metrics
    last: Mapping[str, Any] = next((line for line in reversed(metrics) if "seconds" in line), {})
    hours = texts.hours if texts.hours is not None else last.get("seconds", 0) / 3600
    lines = []
    if last:
        lines.append(f"- {last['step']:,} steps, {last.get('tokens', 0):,} tokens")
    lines.append(f"- {hours:.1f} hours, about {hours * texts.watts / 1000:.2f} kWh (an estimate, at {texts.watts:g} W)")
    options = {name: value for name, value in training.settings.items() if _is_setting(value)}
    if options:
        lines.append("- " + ", ".join(f"`{name}` {value}" for name, value in sorted(options.items())))
    measured = [{name: value for name, value in line.items() if name.startswith("eval_")} for line in metrics]
    if figures := [line for line in measured if line]:
        numbers = {name.removeprefix("eval_"): value for name, value in figures[-1].items() if isinstance(value, float)}
        told = (f"{display_name(name)} {value:.3f}" for name, value in numbers.items())
        lines.append(f"- held-out, at the end: {', '.join(told)}")
    return lines


def _is_setting(value: Any) -> bool:
    """Whether an option of a run is told: paths, which are of a machine, are not."""
    return value is not None and value != [] and "/" not in str(value)


def _curve(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """The loss as a picture; None without metrics, and where matplotlib is not installed."""
    drawn = [name for name in CURVES if any(name in line for line in metrics)]
    if not drawn or not can_draw_curves():
        return None
    return curve_svg(metrics, drawn[0]).replace("currentColor", CURVE_COLOUR)


def _storage(storing: Storing) -> str:
    loss = storing.loss
    beside = f"; {loss.shared} of {loss.tensors} tensors are those of `{storing.base}`" if storing.base else ""
    errors = f"Weights differ from the trained ones by {loss.max_error:.1e} at most, {loss.mean_error:.1e} on average."
    measured = "".join(f" {name}: {value:.4f}." for name, value in storing.figures.items())
    return f"`{storing.storage}`, {loss.bytes / 1e6:.1f} MB{beside}. {errors}{measured}"
