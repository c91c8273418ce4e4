"""What the shipped models answer at once: words for masks, like sentences, a question, entities. Without their package
this part is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from bothways.checkpoint.shipped import INSTALL, shipped_models
from bothways.demo.screen import doubt, fill, say_plainly
from bothways.pages.demo import ShippedAnswers, is_unsure, right_or_wrong
from bothways.predictor import load

EVERYDAY_MASKED = [
    "The capital of France is [MASK].",
    "She opened the [MASK] and walked into the room.",
    "Two plus two is [MASK].",
    "The patient was taken to the [MASK] by ambulance.",
]
QUERY = "How do I get my money back?"
MEANT = "You can ask for a refund within thirty days."
SENTENCES = [
    MEANT,
    "The router has to be restarted once a week.",
    "Our shop is open from nine to five.",
    "The train to Oslo leaves from platform two.",
]
CONTEXT = (
    "The Golden Gate Bridge opened in May 1937. Joseph Strauss was its chief engineer, and its towers are 227 metres "
    "tall. It links San Francisco to Marin County."
)
QUESTIONS = [  # with the answer; empty where the text has none
    ("When did the bridge open?", "May 1937"),
    ("Who was the chief engineer?", "Joseph Strauss"),
    ("What does the bridge link San Francisco to?", "Marin County"),
    ("How much did the bridge cost?", ""),
]
TAGGED = [
    "Angela Merkel met the president of France in Berlin.",
    "My sister works for Microsoft and lives in Seattle.",
]


def shipped_directory(verb: str) -> Path | None:
    """The directory of the shipped model for a verb; None where there is none."""
    return next((model.directory for model in shipped_models().values() if verb in model.verbs), None)


def ask_shipped(console: Console) -> ShippedAnswers | None:
    """Ask each of the shipped models something, on the screen and for the page; None where there are none."""
    found = {verb: shipped_directory(verb) for verb in ("fill", "similar", "answer", "tag")}
    if not any(found.values()):
        say_plainly(console, f"no shipped models here ({INSTALL} installs them), so the demo goes on without them")
        return None
    answers = ShippedAnswers()
    if found["fill"] is not None:
        answers.fills = fill(load(found["fill"]), EVERYDAY_MASKED, console)
    if found["similar"] is not None:
        answers.query, answers.similar = QUERY, _similar(found["similar"], console)
    if found["answer"] is not None:
        answers.context, answers.asked = CONTEXT, _asked(found["answer"], console)
    if found["tag"] is not None:
        answers.marked = list(zip(TAGGED, load(found["tag"]).tag(TAGGED), strict=True))
        for text, entities in answers.marked:
            marks = ", ".join(
                f"{entity.text} ({entity.label} {entity.probability:.0%}{', unsure' * is_unsure(entity.probability)})"
                for entity in entities
            )
            say_plainly(console, f"{text}\n    {marks or 'nothing found'}")
    return answers


def _similar(model: Path, console: Console) -> list[list[Any]]:
    say_plainly(console, f"most like “{QUERY}”:")
    matches = load(model).similar(QUERY, SENTENCES, top_k=len(SENTENCES))
    rows: list[list[Any]] = [[match.text, match.cosine, "yes" if match.text == MEANT else ""] for match in matches]
    for text, cosine, meant in rows:
        say_plainly(console, f"    {cosine:.2f}  {text}{'  (this was meant)' if meant else ''}")
    return rows


def _asked(model: Path, console: Console) -> list[list[Any]]:
    say_plainly(console, CONTEXT)
    asked, answers = [], load(model).answer([question for question, _ in QUESTIONS], CONTEXT)
    for (question, truth), answer in zip(QUESTIONS, answers, strict=True):
        probability = answer.probability if answer.text else answer.no_answer_probability
        told, verdict = answer.text or "no answer", right_or_wrong(answer.text == truth)
        asked.append([question, told, probability, truth or "no answer", verdict])
        say_plainly(console, f"  {question}\n      {told} {probability:.0%} ({verdict}){doubt(probability)}")
    return asked
