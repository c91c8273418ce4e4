"""`bothways fill`, `classify` and `evaluate`: ask a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from bothways.data.tables import SUFFIXES, read_rows
from bothways.errors import UserError
from bothways.inference.predictor import Predictor, load
from bothways.recipes import parse
from bothways.tasks.classify import ClassifyTask
from bothways.train.finetune import evaluate_rows


@dataclass(frozen=True)
class TextArguments:
    """A model and texts for it.

    texts: as arguments; without them one text a line of `--in FILE` or of standard input. A .csv, .tsv, .jsonl or
    .parquet after `--in` gives its text column. A pair is two texts with a tab between. json: JSON lines.
    """

    model: Positional[str]
    texts: Positional[tuple[str, ...]] = ()
    input: Annotated[str | None, tyro.conf.arg(name="in")] = None
    text_column: str = "text"
    json: bool = False
    device: str = "auto"

    def read(self) -> list[str | tuple[str, str]]:
        """The texts, wherever they are. Raises UserError where there are none."""
        if self.texts:
            lines = list(self.texts)
        elif self.input is not None and Path(self.input).suffix in SUFFIXES:
            lines = [row.text(self.text_column) for row in read_rows(self.input, [self.text_column])]
        elif self.input is not None:
            lines = _file_lines(Path(self.input))
        elif not sys.stdin.isatty():
            try:
                lines = [line.rstrip("\n") for line in sys.stdin]
            except UnicodeDecodeError as error:
                raise UserError(f"standard input: byte {error.start + 1} is not UTF-8") from error
        else:
            raise UserError("no text: give texts as arguments, a file after --in, or lines on standard input")
        kept = [line for line in lines if line.strip()]
        if not kept:
            raise UserError(f"{self.input or 'standard input'}: no text in it")
        if len(kept) < len(lines):
            print(f"{len(lines) - len(kept)} empty lines left out", file=sys.stderr)
        return [_pair(line) for line in kept]


def _pair(line: str) -> str | tuple[str, str]:
    first, tab, second = line.partition("\t")
    return (first, second) if tab and first.strip() and second.strip() else line


def _file_lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if not content:
        raise UserError(f"{path}: the file is empty")
    if b"\0" in content[:8192]:
        raise UserError(f"{path}: a binary file, not text")
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


@dataclass(frozen=True)
class FillArguments(TextArguments):
    top_k: int = 5


def fill(arguments: Sequence[str]) -> None:
    """`bothways fill M [TEXT…]`."""
    options = parse(
        "fill",
        FillArguments,
        arguments,
        'Fill in masks. Example: bothways fill run "Returns [MASK] if the file exists."',
    )
    texts = options.read()
    model = load(options.model, options.device)
    for text in texts:
        masks = model.fill(text, options.top_k)
        if options.json:
            print(json.dumps({"text": text, "masks": [[asdict(one) for one in mask] for mask in masks]}))
            continue
        print(text if isinstance(text, str) else " | ".join(text))
        for mask in masks:
            print("    " + "  ".join(f"{one.token} {one.probability:.1%}" for one in mask))


def classify(arguments: Sequence[str]) -> None:
    """`bothways classify M [TEXT…]`."""
    options = parse(
        "classify",
        TextArguments,
        arguments,
        'Give texts their label. Example: bothways classify tickets "No light on my router"',
    )
    texts = options.read()
    model = load(options.model, options.device)
    for text, result in zip(texts, model.classify(texts), strict=True):
        if options.json:
            print(json.dumps({"text": text, **asdict(result)}))
        else:
            shown = text if isinstance(text, str) else " | ".join(text)
            print(f"{result.label}\t{result.scores[result.label]:.1%}\t{shown}")


@dataclass(frozen=True)
class EvaluateArguments:
    """table: labelled rows; the columns are those of the fine-tuning unless named here."""

    model: Positional[str]
    table: Positional[str]
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    json: bool = False
    device: str = "auto"


def evaluate(arguments: Sequence[str]) -> None:
    """`bothways evaluate M F`."""
    options = parse(
        "evaluate",
        EvaluateArguments,
        arguments,
        "Measure a model on labelled rows. Example: bothways evaluate tickets test.csv",
    )
    model = load(options.model, options.device)
    named = {name: getattr(options, name) for name in ("text_column", "pair_column", "label_column")}
    state = dict(model.checkpoint.state)
    state["columns"] = {**state.get("columns", {}), **{name: value for name, value in named.items() if value}}
    task = ClassifyTask.from_state(state)
    rows = read_rows(options.table, list(task.columns))
    encoded = task.encode(rows, model.tokenizer, _limit(model))
    figures = evaluate_rows(model.checkpoint, task, rows, encoded)
    truncated = sum(bool(one.truncated) for one in encoded)
    if truncated:
        print(f"{truncated:,} rows are longer than {_limit(model)} tokens and were cut short", file=sys.stderr)
    print(json.dumps(figures) if options.json else "\n".join(classification_lines(figures)))


def _limit(model: Predictor) -> int:
    return int(model.checkpoint.state.get("sequence_length", model.config.max_position_embeddings))


def classification_lines(figures: Mapping[str, Any]) -> list[str]:
    """Accuracy, figures by label and the confusion matrix, for the terminal."""
    console = Console(width=120)
    labels = list(figures["labels"])
    by_label = Table("label", "precision", "recall", "F1", "rows")
    for label, values in figures["labels"].items():
        *ratios, support = values.values()
        by_label.add_row(label, *(f"{value:.3f}" for value in ratios), f"{support:,}")
    confusion = Table("truth ↓ predicted →", *labels)
    for label, counts in zip(labels, figures["confusion"], strict=True):
        confusion.add_row(label, *(f"{count:,}" for count in counts))
    with console.capture() as capture:
        console.print(by_label)
        if len(labels) <= 12:
            console.print(confusion)
    return [f"accuracy {figures['accuracy']:.3f}   macro F1 {figures['macro_f1']:.3f}", *capture.get().splitlines()]
