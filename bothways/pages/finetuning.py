"""The report of a fine-tuning run: figures of the best epoch, curves, figures by label, examples and mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bothways.pages.display_names import display_name
from bothways.pages.report import HtmlReport
from bothways.progress import duration
from bothways.tasks.metrics import commonest_labels
from bothways.train.best_epoch import best_of, scores_of
from bothways.train.evaluate import Evaluation

MAX_MISTAKES = 20  # rows of the table of mistakes
MAX_EXAMPLES = 5  # right and wrong ones each, of tasks that mark parts of texts
MAX_CELL_CHARACTERS = 280  # of a text in a table


def finetuning_report(
    metrics: Sequence[Mapping[str, Any]],
    evaluation: Evaluation,
    title: str,
    provenance: Mapping[str, Any] | None = None,
) -> HtmlReport:
    """The page of a fine-tuning run."""
    report = HtmlReport(title)
    add_finetuning(report, metrics, evaluation, provenance or {})
    return report


def add_finetuning(
    report: HtmlReport,
    metrics: Sequence[Mapping[str, Any]],
    evaluation: Evaluation,
    provenance: Mapping[str, Any],
    level: int = 2,
) -> None:
    """Figures of merit, where they come from, curves, figures by label, examples, calibration and the worst mistakes.

    metrics: lines of metrics.jsonl. provenance: of the run's model. level: of the headings.
    """
    figures = evaluation.metrics
    numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
    report.table(["", ""], [[display_name(name), value] for name, value in numbers.items()])
    _add_summary(report, metrics, provenance)
    deciding = next(iter(numbers))
    options = provenance.get("options", {})
    per_step = options["epochs"] / options["steps"] if {"epochs", "steps"} <= options.keys() else None
    parts = dict.fromkeys(name for line in metrics for name in line if name.endswith("_loss"))  # beside the task's own
    report.curves(metrics, ["loss", *parts, deciding], per_step)
    report.note(f"The {display_name(deciding)} decides which epoch is kept.")
    _add_labels(report, figures, evaluation.task.label_unit, level)
    _add_examples(report, evaluation, level)
    table = evaluation.table()
    _add_calibration(report, table, level)
    _add_mistakes(report, table, level)


def _add_summary(report: HtmlReport, metrics: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> None:
    """The rows, the best epoch, the time, the machine."""
    rows = [
        [display_name(name), f"{provenance[f'{name}_rows']:,} rows: {provenance[name]}"]
        for name in ("train", "evaluation")
        if f"{name}_rows" in provenance
    ]
    scores = scores_of(metrics)
    if scores:
        rows.append(["best epoch", f"{best_of(scores)} of {len(scores)}, whose model is kept"])
    seconds = [line["seconds"] for line in metrics if "seconds" in line]
    rows += [["time", duration(seconds[-1])]] if seconds else []
    rows += [[name, str(provenance[name])] for name in ("date", "machine") if name in provenance]
    report.table(["", ""], rows)


def _add_labels(report: HtmlReport, figures: Mapping[str, Any], unit: str, level: int) -> None:
    """Figures by label, and which labels were taken for which."""
    if figures.get("labels"):
        rows = [[label, *by_label.values()] for label, by_label in commonest_labels(figures["labels"])]
        of_all = f"the {len(rows)} commonest of {len(figures['labels']):,} labels; evaluation.json has all"
        report.heading("By label", of_all if len(rows) < len(figures["labels"]) else "", level=level)
        report.table(["label", "precision", "recall", "F1", unit], rows)
    if "confusion" in figures:
        report.confusion(list(figures["labels"]), figures["confusion"])
    elif figures.get("most_confused"):
        report.heading(
            "The commonest mistakes", f"no confusion matrix: {figures['confusion_left_out']}", level=level, folded=True
        )
        report.table(["truth", "predicted", unit], [list(pair.values()) for pair in figures["most_confused"]])


def _add_examples(report: HtmlReport, evaluation: Evaluation, level: int) -> None:
    """Some texts with what was found in them, of tasks that mark parts of texts; those with something to mark."""
    marked = [
        evaluation.task.marked(prediction, row)
        for prediction, row in zip(evaluation.predictions, evaluation.rows, strict=True)
    ]
    texts = [text for text in marked if text is not None and (text.found or text.true)]
    for title, is_right in (("Examples that are wrong", False), ("Examples that are right", True)):
        alike = [text for text in texts if text.right == is_right]
        shown = alike[:: -(-len(alike) // MAX_EXAMPLES)] if alike else []  # evenly spaced: neighbours share a context
        if shown:
            about = f"{len(shown)} of {len(alike):,}. Marked: what the model found. Underlined: what is true."
            report.heading(title, about, level=level, folded=is_right)
        for text in shown:
            report.example(text.text, text.found, text.true, text.about)


def _add_calibration(report: HtmlReport, table: Sequence[Mapping[str, Any]], level: int) -> None:
    """How often predictions of each probability are right, with the expected calibration error (Naeini et al. 2015)."""
    judged = [
        (float(line["probability"]), bool(line["right"])) for line in table if {"probability", "right"} <= set(line)
    ]
    if not judged:
        return
    error, rows = 0.0, []
    for tenth in range(10):
        inside = [(probability, right) for probability, right in judged if min(9, int(probability * 10)) == tenth]
        if inside:
            mean, share_right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            error += abs(mean - share_right) * len(inside) / len(judged)
            rows.append([f"{tenth * 10}–{tenth * 10 + 10} %", len(inside), mean, share_right])
    report.heading(
        "Calibration",
        f"expected calibration error {error:.3f}: a probability of 0.8 should be right in 80 %",
        level=level,
        folded=True,
    )
    report.table(["probability", "rows", "mean probability", "share that is right"], rows)


def _add_mistakes(report: HtmlReport, table: Sequence[Mapping[str, Any]], level: int) -> None:
    """The most confident wrong predictions, or the farthest from the truth."""
    wrong = [line for line in table if line.get("right") is False or "error" in line]
    if not wrong:
        return
    by_error = "error" in wrong[0]
    sureness = "error" if by_error else "probability" if "probability" in wrong[0] else "least_probability"
    wrong.sort(key=lambda line: -float(line.get(sureness, 0)))
    shown = wrong[:MAX_MISTAKES]
    report.heading(
        "Farthest from the truth" if by_error else "The most confident mistakes",
        f"{len(shown)} of {len(wrong):,}; predictions.csv has all",
        level=level,
        folded=True,
    )
    columns = [name for name in wrong[0] if name not in ("right", "start", "end")]
    rows = [[_shortened(line[name]) for name in columns] for line in shown]
    report.table([display_name(name) for name in columns], rows)


def _shortened(value: Any) -> Any:
    return value[:MAX_CELL_CHARACTERS] + "…" if isinstance(value, str) and len(value) > MAX_CELL_CHARACTERS else value
