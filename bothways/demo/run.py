"""The demo from its first line to its page; the same command again goes on where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from bothways.data.prepare import prepare
from bothways.demo.helpdesk import sort_tickets
from bothways.demo.learning import (
    MASKED,
    SENTENCE_PAIRS,
    SHORT_TEXTS,
    collect_documentation,
    learn_from_nothing,
    learn_vocabulary,
    read_on,
    reading_on_options,
)
from bothways.demo.screen import fill, judge_pairs, say_title
from bothways.demo.shipped import ask_shipped, shipped_directory
from bothways.errors import UserError, install_command, option
from bothways.files import read_json, require_writable, write_json
from bothways.model.config import EncoderConfig
from bothways.pages.demo import report_pretraining, report_reading_on, report_shipped, report_tickets
from bothways.pages.report import HtmlReport
from bothways.predictor import load
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.loop import TrainResult
from bothways.train.pretrain_options import PretrainOptions
from bothways.verbs.flags import parse

READING_ON_MINUTES = 2.0  # at most; enough for the documentation's words to be learnt, by hand
SHIPPED_EPOCHS = 4  # of tickets, which are few; a model that has read much needs no more


@dataclass(frozen=True)
class DemoArguments:
    """out: the directory of all that it makes; the same command again goes on with it.

    minutes: for the model that learns from nothing, which more time makes better. characters: of documentation to
    read. size: of the model that learns from nothing."""

    out: str = "bothways-demo"
    minutes: float = 3.0
    characters: int = 8_000_000
    vocab_size: int = 8192
    size: str = "tiny"
    seed: int = 0


def run_demo(arguments: Sequence[str]) -> int:
    """`bothways demo`."""
    options = parse("demo", DemoArguments, arguments, "The whole way, in minutes. Example: bothways demo")
    EncoderConfig.from_size(options.size)
    missing = [module for module in ("matplotlib", "sklearn", "gensim", "nltk") if not find_spec(module)]
    if missing:
        raise UserError(f"the demo needs {', '.join(missing)}: {install_command('demo')}")
    out = Path(options.out)
    require_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    keep_options(out / "demo.json", options)
    console, began = Console(soft_wrap=True, highlight=False), time.monotonic()
    stopped = _whole_way(options, out, console)
    if stopped is not None:
        assert stopped.interrupted is not None
        console.print(f"stopped after step {stopped.steps:,}, all of it saved; the same command goes on from there")
        return 128 + stopped.interrupted
    say_title(console, f"Done in {time.monotonic() - began:.0f} seconds")
    console.print(f"the whole run as a page: {out / 'report.html'}\n\nnow with your own text (a folder of .txt, say):")
    for line in NEXT_COMMANDS.format(out=out).strip().splitlines():
        console.print(f"  {line}")
    return 0


def _whole_way(options: DemoArguments, out: Path, console: Console) -> TrainResult | None:
    """All parts and the page. Returns the training that a signal stopped, or None."""
    report = HtmlReport("Bothways demo", "What the shipped models answer, how a model learns, and tickets sorted.")
    say_title(console, "At once: the models that come with Bothways")
    report_shipped(report, ask_shipped(console))
    say_title(console, "Watch one learn: a BERT from nothing, on the documentation on this machine")
    corpus = collect_documentation(out / "corpus.jsonl", options.characters, console)
    tokenizer = learn_vocabulary(corpus, out / "vocabulary", options.vocab_size, console)
    store = prepare(corpus, tokenizer, out / "store")
    console.print(f"{store.manifest['tokens']:,} tokens in {store.directory}")
    settings = PretrainOptions(
        size=options.size, minutes=options.minutes, max_position_embeddings=256, seed=options.seed, **SHORT_TEXTS
    )
    learning = learn_from_nothing(store, out / "pretrained", settings, console)
    if learning.interrupted is not None:
        return learning
    say_title(console, "What it has learnt: words for [MASK], and whether one sentence follows another")
    model = load(out / "pretrained")
    report_pretraining(report, out, fill(model, MASKED, console), judge_pairs(model, SENTENCE_PAIRS, console))
    own = FinetuneOptions(epochs=20, batch_size=16, dropout=0.3, seed=options.seed)  # few rows: much dropout
    starts = {"this BERT, fine-tuned": (out / "pretrained", out / "tickets", own)}
    shipped = shipped_directory("fill")
    if shipped is not None:
        say_title(console, "A shipped model reads on, through the same documentation")
        how = reading_on_options(shipped, min(READING_ON_MINUTES, options.minutes), options.seed)
        learning, read = read_on(corpus, shipped, out, how, console)
        if learning.interrupted is not None:
            return learning
        report_reading_on(report, out, read)
    if (start := shipped_directory("finetune")) is not None:
        few = FinetuneOptions(epochs=SHIPPED_EPOCHS, batch_size=16, seed=options.seed)
        starts["the shipped BERT, fine-tuned"] = (start, out / "tickets-shipped", few)
    say_title(console, "Fine-tuning: an internet provider's tickets into hardware, software and billing")
    tuned, tickets = sort_tickets(starts, console)
    if tickets is None:
        return tuned.training
    report_tickets(report, tickets)
    report.write(out / "report.html")
    return None


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
bothways pretrain store --size auto --hours 1 --out run
bothways fill run "a sentence of yours with a [MASK]"
bothways finetune classify --model run --train train.csv --eval test.csv --out tickets
bothways classify {out}/tickets "there is no light on my router"
"""
