"""The demo's page: what was pretrained, the tickets sorted, entities marked, questions answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bothways.files import read_json
from bothways.pages.finetuning import add_finetuning
from bothways.pages.pretraining import add_pretraining
from bothways.pages.report import HtmlReport
from bothways.tasks.entities import Entity
from bothways.train.evaluate import Evaluation
from bothways.train.run import RunDirectory

UNSURE = 0.5  # below this probability an answer is more likely wrong than right, by the model's own word


def right_or_wrong(right: bool) -> str:
    """The word for a prediction beside the truth."""
    return "right" if right else "wrong"


def report_pretraining(
    report: HtmlReport,
    out: Path,
    fills: Sequence[tuple[str, list[tuple[str, float]]]],
    pairs: Sequence[Sequence[Any]],
) -> None:
    """What was pretrained, and what it says for masks and pairs."""
    report.heading("Pretraining", "Held-out documents were never trained on.")
    run = RunDirectory(out / "pretrained")
    add_pretraining(report, run.metrics(), _provenance(run), level=3)
    report.heading("Words for [MASK]", "What the pretrained model would write, with its probabilities.", level=3)
    unsure = sum(alternatives[0][1] < UNSURE for _, alternatives in fills)
    if unsure:
        report.note(
            f"Of {unsure} of these {len(fills)} masks the model is unsure: its best guess is more likely wrong than "
            "right. More minutes of pretraining make better guesses."
        )
    for text, alternatives in fills:
        report.bars(text, alternatives)
    report.heading("Next sentence", "The probability that the second follows the first.", level=3)
    report.table(["first", "second", "verdict", "probability", "right or wrong"], pairs)


def _provenance(run: RunDirectory) -> dict[str, Any]:
    provenance: dict[str, Any] = read_json(run.model_path / "bothways.json")["provenance"]
    return provenance


def report_tickets(
    report: HtmlReport,
    out: Path,
    evaluation: Evaluation,
    compared: Sequence[Sequence[Any]],
    examples: Sequence[Sequence[Any]],
) -> None:
    """The classifier beside what came before BERT."""
    accuracy = f"Accuracy {evaluation.metrics['accuracy']:.1%} on held-out tickets, beside what BERT must beat."
    report.heading("Sorting tickets", accuracy, folded=True)
    report.table(["", "accuracy"], compared)
    run = RunDirectory(out / "tickets")
    add_finetuning(report, run.metrics(), evaluation, _provenance(run), level=3)
    report.heading("Example predictions", level=3, folded=True)
    report.table(["ticket", "prediction", "probability", "truth", "right or wrong"], examples)


def report_helpdesk(
    report: HtmlReport,
    out: Path,
    entities: Evaluation,
    marked: Sequence[tuple[str, list[Entity]]],
    answers: Evaluation,
    asked: Sequence[Sequence[Any]],
) -> None:
    """Entities marked and questions answered."""
    found = f"F1 {entities.metrics['f1']:.1%} in tickets that were never trained on."
    report.heading("Marking devices, amounts, dates and plans", found, folded=True)
    for text, marks in marked:
        report.example(text, [(entity.start, entity.end, entity.label) for entity in marks])
    run = RunDirectory(out / "entities")
    add_finetuning(report, run.metrics(), entities, _provenance(run), level=3)
    told = f"F1 {answers.metrics['f1']:.1%} about help articles that were never trained on."
    report.heading("Answering questions", told, folded=True)
    right = sum(verdict == "right" for *_, verdict in asked)
    report.note(f"The surest {len(asked)} answers, of which {right} are exactly right:")
    report.table(["question", "answer", "probability", "truth", "right or wrong"], asked)
    run = RunDirectory(out / "questions")
    add_finetuning(report, run.metrics(), answers, _provenance(run), level=3)
