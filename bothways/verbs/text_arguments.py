"""Texts that the asking verbs are given: as arguments, from a file, or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.data.tables import TableFormat, TableOptions, is_labelled_table, read_rows
from bothways.errors import UserError
from bothways.inference.texts import Text
from bothways.precision import InferencePrecision
from bothways.remote_files import local_file
from bothways.text.encodings import BINARY_SAMPLE_BYTES, UTF8, checked_encoding, decoded, undecodable_message
from bothways.verbs.model_argument import load_model
from bothways.verbs.options import ModelToAsk, Positional
from bothways.verbs.printing import say

if TYPE_CHECKING:
    from bothways.predictor import Predictor

MAX_LINES_SHOWN = 10  # numbers of empty lines


@dataclass(frozen=True)
class TextArguments:
    """A model and texts for it.

    texts: as arguments, or one a line of `--in FILE` or of standard input; in these a pair is two texts with a tab
    between, unless the model was fine-tuned on single texts. A .csv, .tsv, .jsonl or .parquet after `--in` gives its
    columns: those the model was fine-tuned on, or `--text-column` and `--pair-column`. json: JSON lines.
    format: what the file after `--in` is, where its name does not say it. encoding: of that file, if it is not UTF-8.
    """

    model: ModelToAsk = None
    texts: Positional[tuple[str, ...]] = ()
    input: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    json: bool = False
    format: TableFormat | None = None
    encoding: str = "utf-8"
    device: str = "auto"

    @staticmethod
    def least_words(given: Mapping[str, Any]) -> int:
        """How many words there must be besides the model's, so that there is a text. given: options, by name."""
        elsewhere = "input" in given or "out" in given or (sys.stdin is not None and not sys.stdin.isatty())
        return 0 if elsewhere else 1

    def read(self, columns: Mapping[str, Any]) -> list[Text]:
        """The texts, wherever they are, without empty lines, of which it says how many they are and where; columns:
        those of the fine-tuning, by the name of the option. Raises UserError where there are none, or in two places."""
        texts = self.read_lines(columns)
        if empty := empty_lines(texts):
            say(f"{empty} left out")
        return [text for text in texts if text is not None]

    def read_lines(self, columns: Mapping[str, Any]) -> list[Text | None]:
        """The texts as `read`, but with None in place of each empty line."""
        if self.texts and self.input:
            raise UserError(f"texts are given both as arguments and by --in {self.input}; choose one")
        if (self.format or self.encoding != "utf-8") and not self.input:
            raise UserError("--format and --encoding: are of a file after --in")
        if self.input and (self.format or is_labelled_table(self.input)):
            return [*self._from_table(self.input, columns)]
        if self.texts:
            lines = list(self.texts)
        elif self.input:
            lines = file_lines(local_file(self.input), self.encoding)
        elif sys.stdin is not None and not sys.stdin.isatty():
            lines = _lines_of(_decoded(_standard_input(), "standard input").removeprefix("\ufeff"))
        else:
            raise UserError("no text: give texts as arguments, a file after --in, or lines on standard input")
        if not any(map(str.strip, lines)):
            raise UserError("the text is empty" if self.texts else f"{self.input or 'standard input'}: no text in it")
        single = bool(columns.get("text_column")) and not columns.get("pair_column")
        return [None if not line.strip() else line if single else _pair(line) for line in lines]

    def _from_table(self, table: str, trained: Mapping[str, Any]) -> list[Text]:
        first = self.text_column or trained.get("text_column") or "text"
        second = self.pair_column or trained.get("pair_column")
        rows = read_rows(table, [first, second] if second else [first], TableOptions(self.format, say, self.encoding))
        return [(row.text(first), row.text(second)) if second else row.text(first) for row in rows]


def _pair(line: str) -> Text:
    """A line as a pair where a tab parts two texts, else as a text."""
    first, tab, second = line.partition("\t")
    return (first, second) if tab and first.strip() and second.strip() else line


def empty_lines(texts: Sequence[Text | None]) -> str:
    """`2 empty lines (3, 7)`, the numbers of the first few; an empty text where there are none."""
    numbers = [number for number, text in enumerate(texts, 1) if text is None]
    if not numbers:
        return ""
    more = ", …" if len(numbers) > MAX_LINES_SHOWN else ""
    lines = "lines" if len(numbers) > 1 else "line"
    return f"{len(numbers):,} empty {lines} ({', '.join(map(str, numbers[:MAX_LINES_SHOWN]))}{more})"


def file_lines(path: Path, encoding: str = UTF8) -> list[str]:
    """The lines of a text file. Raises UserError for a file that cannot be read, is empty, binary or undecodable.

    encoding: of a file that is not UTF-8.
    """
    return _lines_of(file_text(path, encoding).removeprefix("\ufeff"))


def file_text(path: Path, encoding: str = UTF8) -> str:
    """The characters of a text file, all of them: carriage returns and a byte order mark too. Raises UserError as
    `file_lines`."""
    checked_encoding(encoding)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if not content:
        raise UserError(f"{path}: the file is empty")
    try:
        text, name = decoded(content, encoding)
    except UnicodeDecodeError as error:
        raise UserError(undecodable_message(str(path), error)) from error
    if name == UTF8 and "\0" in text[:BINARY_SAMPLE_BYTES]:
        raise UserError(f"{path}: a binary file, not text")
    if name != encoding:
        say(f"{path}: read as {name.upper()}")
    return text


def _standard_input() -> bytes | str:
    """All of standard input; text where it is a stream of text alone, as in a notebook."""
    try:
        content: bytes | str = getattr(sys.stdin, "buffer", sys.stdin).read()
    except OSError as error:
        raise UserError(f"standard input cannot be read: {error.strerror or error}") from error
    return content


def _lines_of(text: str) -> list[str]:
    """The lines; they end in line feeds, in carriage returns and line feeds, or in carriage returns alone."""
    text = text.replace("\r\n", "\n")
    return (text if "\n" in text else text.replace("\r", "\n")).removesuffix("\n").split("\n")


def _decoded(content: bytes | str, source: str) -> str:
    try:
        return content if isinstance(content, str) else content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(undecodable_message(source, error)) from error


def open_model(
    verb: str, options: TextArguments, precision: InferencePrecision = "float32", calibrate: str | None = None
) -> tuple[Predictor, list[Text]]:
    """The model that a verb is given, and its texts and pairs."""
    model = load_model(verb, options, precision, calibrate)
    return model, options.read(model.checkpoint.metadata.get("options", {}))


def open_model_and_texts(
    verb: str, options: TextArguments, precision: InferencePrecision = "float32", calibrate: str | None = None
) -> tuple[Predictor, list[str]]:
    """The model that a verb is given, and its texts, for verbs without pairs: a tab is a blank in a text."""
    model = load_model(verb, options, precision, calibrate)
    return model, single_texts(
        options, {"text_column": model.checkpoint.metadata.get("options", {}).get("text_column")}
    )


def single_texts(options: TextArguments, columns: Mapping[str, Any]) -> list[str]:
    """The texts, a tab in them a blank. columns: as `TextArguments.read`."""
    return [text if isinstance(text, str) else "\t".join(text) for text in options.read(columns)]


def single_lines(options: TextArguments, columns: Mapping[str, Any]) -> list[str | None]:
    """The texts as `single_texts`, with None in place of each empty line."""
    return ["\t".join(text) if isinstance(text, tuple) else text for text in options.read_lines(columns)]


def shown_text(text: Text) -> str:
    """A text as the terminal shows it, on one line; the two of a pair are parted by a bar."""
    return " ".join((text if isinstance(text, str) else " | ".join(text)).splitlines())
