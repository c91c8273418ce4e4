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
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from bothways.data.tables import SUFFIXES, read_rows
from bothways.errors import UserError
from bothways.inference.predictor import Predictor, Text, load
from bothways.recipes import parse
from bothways.tasks.classify import ClassifyTask


@dataclass(frozen=True)
class TextArguments:
    """A model and texts for it.

    texts: as arguments, or one a line of `--in FILE` or of standard input; in these a pair is two texts with a tab
    between. A .csv, .tsv, .jsonl or .parquet after `--in` gives its columns: those the model was fine-tuned on, or
    `--text-column` and `--pair-column`. json: JSON lines.
    """

    model: Positional[str]
    texts: Positional[tuple[str, ...]] = ()
    input: Annotated[str | None, tyro.conf.arg(name="in")] = None
    text_column: str | None = None
    pair_column: str | None = None
    json: bool = False
    device: str = "auto"

    def read(self, model: Predictor) -> list[Text]:
        """The texts, wherever they are. Raises UserError where there are none, or in two places."""
        if self.texts and self.input:
            raise UserError(f"texts are given both as arguments and by --in {self.input}; choose one")
        if self.input and Path(self.input).suffix.lower() in SUFFIXES:
            return self._from_table(self.input, model.checkpoint.state.get("columns", {}))
        if self.texts:
            lines = list(self.texts)
        elif self.input:
            lines = _file_lines(Path(self.input))
        elif not sys.stdin.isatty():
            lines = _decoded_lines(getattr(sys.stdin, "buffer", sys.stdin).read(), "standard input")
        else:
            raise UserError("no text: give texts as arguments, a file after --in, or lines on standard input")
        kept = [line for line in lines if line.strip()]
        if not kept:
            raise UserError(f"{self.input or 'standard input'}: no text in it")
        if len(kept) < len(lines):
            print(f"{len(lines) - len(kept)} empty lines left out", file=sys.stderr)
        return [_pair(line) for line in kept]

    def _from_table(self, table: str, trained: Mapping[str, Any]) -> list[Text]:
        first = self.text_column or trained.get("text_column") or "text"
        second = self.pair_column or trained.get("pair_column")
        rows = read_rows(table, [first, second] if second else [first])
        return [(row.text(first), row.text(second)) if second else row.text(first) for row in rows]


def _pair(line: str) -> Text:
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
    return _decoded_lines(content, str(path))


def _decoded_lines(content: bytes | str, source: str) -> list[str]:
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        place = f"{source}:{line}: byte 0x{error.object[error.start]:02x}"
        raise UserError(f"{place} is not UTF-8; save the text as UTF-8") from error
    return text.removesuffix("\n").replace("\r\n", "\n").split("\n")


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
    model = load(options.model, options.device)
    for text in options.read(model):
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
    model = load(options.model, options.device)
    texts = options.read(model)
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
    from bothways.train.finetune import evaluate_rows  # loads what training needs, which the other verbs do not

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
    encoded = task.encode(rows, model.tokenizer, model.sequence_length)
    figures = evaluate_rows(model.checkpoint, task, rows, encoded)
    truncated = sum(bool(one.truncated) for one in encoded)
    if truncated:
        print(f"{truncated:,} rows are longer than {model.sequence_length} tokens and were cut short", file=sys.stderr)
    print(json.dumps(figures) if options.json else "\n".join(classification_lines(figures)))


def classification_lines(figures: Mapping[str, Any]) -> list[str]:
    """Accuracy, figures by label and the confusion matrix, for the terminal."""
    console = Console(width=120)
    labels = list(figures["labels"])
    by_label = Table("label", "precision", "recall", "F1", "rows")
    for label, values in figures["labels"].items():
        *ratios, support = values.values()
        by_label.add_row(escape(label), *(f"{value:.3f}" for value in ratios), f"{support:,}")
    confusion = Table("truth ↓ predicted →", *map(escape, labels))
    for label, counts in zip(labels, figures["confusion"], strict=True):
        confusion.add_row(escape(label), *(f"{count:,}" for count in counts))
    with console.capture() as capture:
        console.print(by_label)
        if len(labels) <= 12:
            console.print(confusion)
    return [f"accuracy {figures['accuracy']:.3f}   macro F1 {figures['macro_f1']:.3f}", *capture.get().splitlines()]
