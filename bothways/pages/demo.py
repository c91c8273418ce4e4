"""The demo's page: what the shipped models answer, what was pretrained, what reading on changed, the tickets sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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

UNDECIDED = 0.1  # of two answers, nearer to even than this is no answer

Fills = list[tuple[str, list[tuple[str, float]]]]  # texts with a mask, and what may stand there, likeliest first


@dataclass
class ShippedAnswers:
    """What the shipped models answered; empty where the model for it is not there.

    similar: text, cosine, whether it was meant. asked: question, answer, probability, truth, right or wrong.
    """

    fills: Fills = field(default_factory=list)
    query: str = ""
    similar: list[list[Any]] = field(default_factory=list)
    context: str = ""
    asked: list[list[Any]] = field(default_factory=list)
    marked: list[tuple[str, list[Entity]]] = field(default_factory=list)


@dataclass(frozen=True)
class ReadingOn:
    """What a model filled in before it read on, and after."""

    before: Fills
    after: Fills


@dataclass(frozen=True)
class SortedTickets:
    """best: what the best model is called. run: of it. compared: name, accuracy. examples: ticket, prediction,
    probability, truth, right or wrong."""

    best: str
    run: Path
    evaluation: Evaluation
    compared: list[list[Any]]
    examples: list[list[Any]]

    def verdict(self) -> str:
        """Which of all sorts best, where it is no BERT; else nothing."""
        name, accuracy = max(self.compared, key=lambda line: line[1])
        if accuracy <= self.evaluation.metrics["accuracy"]:
            return ""
        return (
            f"Here {name} sorts better than any BERT does: these have read too little. More minutes make them better."
        )


def right_or_wrong(right: bool) -> str:
    """The word for a prediction beside the truth."""
    return "right" if right else "wrong"


def is_unsure(probability: float) -> bool:
    """Whether an answer is more likely wrong than right, by the model's own word."""
    return probability < UNSURE


def report_shipped(report: HtmlReport, answers: ShippedAnswers | None) -> None:
    """What the shipped models answer at once."""
    if answers is None:
        report.note("The shipped models are not installed here, so this page begins with a model that learns.")
        return
    report.heading("At once", "What the models that come with Bothways answer, untouched.")
    if answers.fills:
        report.heading("Words for [MASK]", level=3)
        _add_fills(report, answers.fills, "")
    if answers.asked:
        report.heading("Questions about a text", answers.context, level=3)
        _note_unsure(report, [line[2] for line in answers.asked], "answers", "")
        report.table(["question", "answer", "probability", "truth", "right or wrong"], answers.asked)
    if answers.similar:
        report.heading("Like sentences", f"Those most like “{answers.query}” come first.", level=3)
        report.table(["sentence", "cosine", "meant"], answers.similar)
    if answers.marked:
        report.heading("Entities", level=3)
        found = [entity.probability for _, entities in answers.marked for entity in entities]
        _note_unsure(report, found, "entities", "")
        for text, entities in answers.marked:
            report.example(text, [(entity.start, entity.end, entity.label) for entity in entities])


def report_pretraining(report: HtmlReport, out: Path, fills: Fills, pairs: Sequence[Sequence[Any]]) -> None:
    """What was pretrained, and what it says for masks and pairs."""
    report.heading("Watch one learn", "A BERT from nothing. Held-out documents were never trained on.")
    run = RunDirectory(out / "pretrained")
    add_pretraining(report, run.metrics(), _provenance(run), level=3)
    report.heading("Words for [MASK]", "What the pretrained model would write, with its probabilities.", level=3)
    _add_fills(report, fills, " More minutes of pretraining make better guesses.")
    report.heading("Next sentence", "The probability that the second follows the first.", level=3)
    undecided = sum(abs(pair[3] - 0.5) < UNDECIDED for pair in pairs)
    if undecided:
        report.note(f"Of {undecided} of these {len(pairs)} pairs it cannot tell: both answers are about as likely.")
    report.table(["first", "second", "verdict", "probability", "right or wrong"], pairs)


def report_reading_on(report: HtmlReport, out: Path, read: ReadingOn) -> None:
    """What a shipped model filled in before and after it read this machine's documentation."""
    told = "A shipped model has read this machine's documentation: its first guess for [MASK] before and after."
    report.heading("Reading on", told)
    last = [alternatives[0][1] for _, alternatives in read.after]
    _note_unsure(report, last, "guesses after it", "")
    rows = [
        [text, _guess(before), _guess(after)]
        for (text, before), (_, after) in zip(read.before, read.after, strict=True)
    ]
    report.table(["text", "before", "after"], rows)
    run = RunDirectory(out / "read-on")
    report.heading("How it read on", level=3, folded=True)
    add_pretraining(report, run.metrics(), _provenance(run), level=3)


def report_tickets(report: HtmlReport, tickets: SortedTickets) -> None:
    """The fine-tuned classifiers beside what came before BERT."""
    accuracy = f"{tickets.evaluation.metrics['accuracy']:.1%} by {tickets.best}"
    report.heading("Sorting tickets", f"Accuracy on held-out tickets, beside what BERT must beat: {accuracy}.")
    report.table(["", "accuracy"], tickets.compared)
    if tickets.verdict():
        report.note(tickets.verdict())
    wrong = sum(verdict == "wrong" for *_, verdict in tickets.examples)
    report.heading("Example predictions", f"{wrong} of these {len(tickets.examples)} are wrong.", level=3)
    report.table(["ticket", "prediction", "probability", "truth", "right or wrong"], tickets.examples)
    run = RunDirectory(tickets.run)
    report.heading("How it learnt", level=3, folded=True)
    add_finetuning(report, run.metrics(), tickets.evaluation, _provenance(run), level=3)


def _add_fills(report: HtmlReport, fills: Fills, cure: str) -> None:
    """Masks with what may stand there; a text whose best guess is unsure says so. cure: what would help."""
    _note_unsure(report, [alternatives[0][1] for _, alternatives in fills], "masks", cure)
    for text, alternatives in fills:
        report.bars(f"{text}{' (unsure)' if is_unsure(alternatives[0][1]) else ''}", alternatives)


def _note_unsure(report: HtmlReport, probabilities: Sequence[float], what: str, cure: str) -> None:
    """Say of how many answers the model is unsure, if it is of any."""
    unsure = sum(map(is_unsure, probabilities))
    if unsure:
        report.note(
            f"Of {unsure} of these {len(probabilities)} {what} the model is unsure: its best guess is more likely "
            f"wrong than right.{cure}"
        )


def _guess(alternatives: Sequence[tuple[str, float]]) -> str:
    token, probability = alternatives[0]
    return f"“{token}” {probability:.0%}{' (unsure)' if is_unsure(probability) else ''}"


def _provenance(run: RunDirectory) -> dict[str, Any]:
    provenance: dict[str, Any] = read_json(run.model_path / "bothways.json")["provenance"]
    return provenance
