"""Watch models learn from this machine's documentation: a BERT from nothing, and a shipped model that reads on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.demo.screen import doubt, fill, say_plainly
from bothways.errors import UserError
from bothways.files import write_text
from bothways.pages.demo import ReadingOn, right_or_wrong
from bothways.pages.pretraining import evenly_spaced
from bothways.predictor import load
from bothways.progress import ByteProgress, Progress
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sources import resolve_sources
from bothways.text.tokenizer import Tokenizer
from bothways.text.vocabulary import train_tokenizer
from bothways.train.loop import TrainResult
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import ObjectiveName, PretrainOptions
from bothways.train.run import RunDirectory

MASKED = [
    "Returns True if the two [MASK] are equal.",
    "This function raises an [MASK] if the file does not exist.",
    "The default [MASK] is None.",
    "Return the [MASK] of the array along the given axis.",
    "If this argument is not [MASK], the default value is used.",
]
SENTENCE_PAIRS = [  # with whether the second follows the first
    ("Read the next line from the file.", "At the end of the file an empty string is returned.", True),
    ("Return a copy of the dictionary.", "The keys and values of the copy are those of the original.", True),
    ("Read the next line from the file.", "The colour of the axes can be set with this parameter.", False),
    ("Return a copy of the dictionary.", "The matrix must be square and positive definite.", False),
]
NUM_TIMES = 3  # of a run at which the same masks are shown: near the start, in the middle, at the end
READING_ON_LR = 3e-4  # a third of what a new model of its width has, so that it keeps what it knows; chosen by hand
SHORT_TEXTS: dict[str, Any] = {"tokens_per_step": 4096, "sequence_length": 64}  # of pretraining


def collect_documentation(path: Path, characters: int, console: Console) -> Path:
    """Write the documentation as a corpus of one JSON object a document; kept for the next time."""
    if not path.exists():
        report = CorpusReport()
        sources = resolve_sources(["python-docs:"])
        lines, collected = [], 0
        with ByteProgress("python-docs", sources[0].size) as progress:
            for document in read_documents(sources, CorpusOptions(skip_bad=True), report):
                lines.append(json.dumps({"text": document.text, "source": document.source}) + "\n")
                collected += len(document.text)
                progress.update(report)
                if collected >= characters:
                    break
        if not lines:
            raise UserError("the Python packages on this machine carry no documentation; use files of your own")
        write_text(path, "".join(lines))
        for line in report.lines(5):
            console.print(line)
    with path.open(encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    if not documents:
        raise UserError(f"{path}: the file is empty; delete it to begin anew")
    words = sum(len(document["text"].split()) for document in documents)
    console.print(f"{len(documents):,} documents, {words:,} words in {path}; for example, of {documents[0]['source']}:")
    say_plainly(console, f"  “{documents[0]['text'].splitlines()[0]}”")
    return path


def learn_vocabulary(corpus: Path, out: Path, vocab_size: int, console: Console) -> Tokenizer:
    """Train the vocabulary, or open the one of an earlier run."""
    if not out.exists():
        train_tokenizer(corpus, out, vocab_size=vocab_size)
    tokenizer = Tokenizer.load(out)
    example = "The deserializer re-encodes unpicklable objects."
    pieces = [tokenizer.token(index) for index in tokenizer.encode(example).input_ids]
    say_plainly(console, f"“{example}” becomes {' '.join(pieces)}")
    return tokenizer


def learn_from_nothing(store: TokenStore, out: Path, options: PretrainOptions, console: Console) -> TrainResult:
    """Pretrain for the minutes asked, and show what the model made of the same held-out words over time."""
    result = pretrain(store.directory, out, options, progress=Progress("pretrain"))
    if result.interrupted is None:
        _show_learning(RunDirectory(out), console)
    return result


def _show_learning(run: RunDirectory, console: Console) -> None:
    """The first guess for held-out words, beside the truth, near the start, in the middle and at the end of a run."""
    measured = [line for line in run.metrics() if line.get("eval_fills")]
    if not measured:
        return
    lines = evenly_spaced(measured, NUM_TIMES)
    steps = ", ".join(f"{line['step']:,}" for line in lines)
    say_plainly(console, f"the same held-out words after {steps} steps:")
    for number, last in enumerate(lines[-1]["eval_fills"]):
        guesses = [line["eval_fills"][number] for line in lines]
        told = "  →  ".join(f"{guess['guess']} {guess['probability']:.0%}" for guess in guesses)
        verdict = right_or_wrong(last["guess"] == last["truth"])
        shown = verdict if verdict == "right" else f"wrong, is {last['truth']}"
        say_plainly(console, f"{last['text']}\n    {told}  ({shown}){doubt(last['probability'])}")


def read_on(
    corpus: Path, model: Path, out: Path, options: PretrainOptions, console: Console
) -> tuple[TrainResult, ReadingOn]:
    """The shipped model reads this machine's documentation; what it fills in before and after. out: the demo's."""
    start = load(model)
    say_plainly(console, "before:")
    before = fill(start, MASKED, console)
    store = prepare(corpus, start.tokenizer, out / "store-shipped")
    result = pretrain(store.directory, out / "read-on", options, progress=Progress("read on"))
    if result.interrupted is not None:
        return result, ReadingOn(before, [])
    say_plainly(console, "after:")
    return result, ReadingOn(before, fill(load(out / "read-on"), MASKED, console))


def reading_on_options(model: Path, minutes: float, seed: int) -> PretrainOptions:
    """How a model reads on: by the losses that its heads were trained with."""
    objective: ObjectiveName = "bert" if "next-sentence" in load(model).model.head.abilities else "mlm"
    return PretrainOptions(
        model=str(model), objective=objective, minutes=minutes, lr=READING_ON_LR, seed=seed, **SHORT_TEXTS
    )
