"""The report of a pretraining run: its text, size and speed, curves, and samples over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bothways.data.lengths import documents_in_words
from bothways.pages.display_names import display_name
from bothways.pages.report import HtmlReport
from bothways.progress import duration

# Figures that have a chart, in this order; others of an objective that ends in _loss or _accuracy come behind.
CHARTS = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "sop_loss", "sop_accuracy", "lm_loss", "lm_accuracy")
SPEED_CHARTS = ("tokens_per_second", "lr", "grad_norm")
MAX_SNAPSHOTS = 6  # evaluations whose samples are shown: as many columns as fit a screen


def pretraining_report(
    metrics: Sequence[Mapping[str, Any]], title: str, provenance: Mapping[str, Any] | None = None
) -> HtmlReport:
    """The page of a pretraining run, to which a caller may add sections."""
    report = HtmlReport(title)
    add_pretraining(report, metrics, provenance or {})
    return report


def add_pretraining(
    report: HtmlReport, metrics: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any], level: int = 2
) -> None:
    """The run's text, size and speed, its last held-out figures, curves, and samples over time.

    metrics: the lines of metrics.jsonl, in order. provenance: of the run's model. level: of the headings.
    """
    charts = _charts(metrics)
    last: Mapping[str, Any] = next((line for line in reversed(metrics) if "loss" in line), {})
    held_out: Mapping[str, Any] = next((line for line in reversed(metrics) if _held_out(line)), {})
    seconds, tokens = float(last.get("seconds", 0.0)), last.get("tokens", 0)
    rows: list[list[Any]] = [["text", text_in_words(provenance)]] if provenance.get("documents") else []
    rows.append(["training", f"{last.get('step', 0):,} steps, {tokens:,} tokens{epochs_in_words(provenance)}"])
    speed = f"{duration(seconds)}, {round(tokens / max(1e-9, seconds)):,} tokens/s"
    rows.append(["time", f"{speed}{_time_given(provenance)}"])
    rows += [[name, str(provenance[name])] for name in ("date", "machine") if name in provenance]
    rows += [[display_name(name), f"{held_out[name]:.3f}"] for name in held_out if name in _held_out(held_out)]
    report.table(["", ""], rows)
    if provenance.get("held_out_documents") == 1 and "mlm_loss" in charts:
        report.note("One document is held out, whose pairs are all true, so there is no held-out next-sentence figure.")
    report.curves(metrics, charts)
    report.heading("Speed and learning rate", level=level, folded=True)
    report.curves(metrics, SPEED_CHARTS)
    _add_fills(report, [line for line in metrics if line.get("eval_fills")], level)
    _add_continuations(report, [line for line in metrics if line.get("eval_continuations")], level)


def text_in_words(provenance: Mapping[str, Any]) -> str:
    """The text that a model was trained on: "40 files in texts: 39 documents, 100,000 tokens"."""
    where = f"{provenance['text']}: " if provenance.get("text") else ""
    held_out = provenance.get("held_out_documents", 0)
    besides = (
        f"; held out: {documents_in_words(held_out)}, {provenance['held_out_tokens']:,} tokens" if held_out else ""
    )
    return f"{where}{documents_in_words(provenance['documents'])}, {provenance['tokens']:,} tokens{besides}"


def epochs_in_words(provenance: Mapping[str, Any]) -> str:
    """How often the text was read: ", the text 4.1 times"; nothing where that is not known."""
    return f", the text {provenance['epochs']:,.1f} times" if "epochs" in provenance else ""


def _time_given(provenance: Mapping[str, Any]) -> str:
    """The time that the run was given in place of a number of steps, if it was."""
    options = provenance.get("options", {})
    given = next((f"{options[unit]:g} {unit}" for unit in ("hours", "minutes") if unit in options), None)
    return f"; {given} were given for all of it, evaluations and checkpoints included" if given else ""


def _held_out(line: Mapping[str, Any]) -> list[str]:
    return [name for name, value in line.items() if name.startswith("eval_") and isinstance(value, float)]


def _charts(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures that have a chart: those of `CHARTS`, then what else is a loss or an accuracy."""
    names = dict.fromkeys(name.removeprefix("eval_") for line in metrics for name in line)
    logged = [name for name in names if name.endswith(("_loss", "_accuracy"))]
    return [*(name for name in CHARTS if name in logged), *(name for name in logged if name not in CHARTS)]


def _add_fills(report: HtmlReport, lines: Sequence[Mapping[str, Any]], level: int) -> None:
    """The model's first guess for the same held-out masks at several times of the run."""
    if not lines:
        return
    shown = evenly_spaced(lines)
    report.heading(
        "The same held-out masks over training",
        "The first guess for [MASK] and its probability, by step. Where _ stands, another word was to be filled in.",
        level=level,
    )
    rows = [
        [fill["text"], fill["truth"], *(_guess(line["eval_fills"], number) for line in shown)]
        for number, fill in enumerate(shown[-1]["eval_fills"])
    ]
    report.table(["text", "truth", *(f"step {line['step']:,}" for line in shown)], rows)


def _add_continuations(report: HtmlReport, lines: Sequence[Mapping[str, Any]], level: int) -> None:
    """How the model went on from the same held-out words at several times of the run."""
    if not lines:
        return
    report.heading(
        "The same held-out words over training",
        "What follows them, drawn at temperature 0.8 from the 40 likeliest.",
        level=level,
    )
    rows = [
        [f"{line['step']:,}", sample["text"], sample["continuation"]]
        for number in range(len(lines[-1]["eval_continuations"]))
        for line in evenly_spaced(lines)
        for sample in line["eval_continuations"][number : number + 1]
    ]
    report.table(["step", "text", "continuation"], rows)


def evenly_spaced(lines: Sequence[Mapping[str, Any]], most: int = MAX_SNAPSHOTS) -> list[Mapping[str, Any]]:
    """The first, the last, and some between: `most` at most, which is 2 or more."""
    gaps = most - 1
    return [lines[index] for index in sorted({round(gap * (len(lines) - 1) / gaps) for gap in range(gaps + 1)})]


def _guess(fills: Sequence[Mapping[str, Any]], number: int) -> str:
    return f"“{fills[number]['guess']}” {fills[number]['probability']:.0%}" if number < len(fills) else ""
