"""Texts that the asking verbs are given: as arguments, from a file, or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from bothways.data.tables import LABELLED_SUFFIXES, read_rows
from bothways.errors import UserError
from bothways.inference.texts import Text
from bothways.precision import InferencePrecision
from bothways.predictor import Predictor, load


@dataclass(frozen=True)
class TextArguments:
    """A model and texts for it.

    texts: as arguments, or one a line of `--in FILE` or of standard input; in these a pair is two texts with a tab
    between, unless the model was fine-tuned on single texts. A .csv, .tsv, .jsonl or .parquet after `--in` gives its
    columns: those the model was fine-tuned on, or `--text-column` and `--pair-column`. json: JSON lines.
    """

    model: Positional[str]
    texts: Positional[tuple[str, ...]] = ()
    input: Annotated[str | None, tyro.conf.arg(name="in")] = None
    text_column: str | None = None
    pair_column: str | None = None
    json: bool = False
    device: str = "auto"

    def read(self, columns: Mapping[str, Any]) -> list[Text]:
        """The texts, wherever they are; columns: those of the fine-tuning, by the name of the option. Raises UserError
        where there are none, or in two places."""
        if self.texts and self.input:
            raise UserError(f"texts are given both as arguments and by --in {self.input}; choose one")
        if self.input and Path(self.input).suffix.lower() in LABELLED_SUFFIXES:
            return self._from_table(self.input, columns)
        if self.texts:
            lines = list(self.texts)
        elif self.input:
            lines = file_lines(Path(self.input))
        elif not sys.stdin.isatty():
            lines = _decoded_lines(getattr(sys.stdin, "buffer", sys.stdin).read(), "standard input")
        else:
            raise UserError("no text: give texts as arguments, a file after --in, or lines on standard input")
        kept = [line for line in lines if line.strip()]
        if not kept:
            raise UserError("the text is empty" if self.texts else f"{self.input or 'standard input'}: no text in it")
        if len(kept) < len(lines):
            print(f"{len(lines) - len(kept)} empty lines left out", file=sys.stderr)
        single = bool(columns.get("text_column")) and not columns.get("pair_column")
        return list(kept) if single else [_pair(line) for line in kept]

    def _from_table(self, table: str, trained: Mapping[str, Any]) -> list[Text]:
        first = self.text_column or trained.get("text_column") or "text"
        second = self.pair_column or trained.get("pair_column")
        rows = read_rows(table, [first, second] if second else [first])
        return [(row.text(first), row.text(second)) if second else row.text(first) for row in rows]


def _pair(line: str) -> Text:
    """A line as a pair where a tab parts two texts, else as a text."""
    first, tab, second = line.partition("\t")
    return (first, second) if tab and first.strip() and second.strip() else line


def file_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises UserError for a file that cannot be read, is empty, binary or not UTF-8."""
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


def open_model(options: TextArguments, precision: InferencePrecision = "float32") -> tuple[Predictor, list[Text]]:
    """The model that a verb is given, and its texts and pairs."""
    model = load(options.model, options.device, precision)
    return model, options.read(model.checkpoint.metadata.get("options", {}))


def open_model_and_texts(
    options: TextArguments, precision: InferencePrecision = "float32"
) -> tuple[Predictor, list[str]]:
    """The model that a verb is given, and its texts, for verbs without pairs: a tab is a blank in a text."""
    model = load(options.model, options.device, precision)
    return model, single_texts(
        options, {"text_column": model.checkpoint.metadata.get("options", {}).get("text_column")}
    )


def single_texts(options: TextArguments, columns: Mapping[str, Any]) -> list[str]:
    """The texts, a tab in them a blank. columns: as `TextArguments.read`."""
    return [text if isinstance(text, str) else "\t".join(text) for text in options.read(columns)]


def shown_text(text: Text) -> str:
    """A text as the terminal shows it; the two of a pair are parted by a bar."""
    return text if isinstance(text, str) else " | ".join(text)
