"""`bothways similar M QUERY --in FILE`: the lines of a file most like a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.data.tables import TableOptions, is_labelled_table, read_rows
from bothways.errors import UserError
from bothways.files import to_json
from bothways.inference.vectors import DotMatch
from bothways.precision import InferencePrecision
from bothways.predictor import load
from bothways.progress import CountProgress
from bothways.verbs.flags import parse
from bothways.verbs.options import Positional
from bothways.verbs.printing import say
from bothways.verbs.text_arguments import file_lines


@dataclass(frozen=True)
class SimilarArguments:
    """input: a text file, of which each line is compared with the query; or a table, of which the column `text` is.
    encoding: of a file that is not UTF-8."""

    model: Positional[str]
    query: Positional[str]
    input: str
    top_k: int = 5
    json: bool = False
    encoding: str = "utf-8"
    precision: InferencePrecision = "auto"
    device: str = "auto"


def run_similar(arguments: Sequence[str]) -> None:
    """`bothways similar M QUERY --in FILE`."""
    options = parse(
        "similar",
        SimilarArguments,
        arguments,
        'Find the lines of a file most like a text. Example: bothways similar model "slow wifi" --in tickets.txt',
    )
    path = Path(options.input)
    if is_labelled_table(path):
        rows = read_rows(path, ["text"], TableOptions(say=say, encoding=options.encoding))
        lines = [(row.source, row.text("text")) for row in rows]
    else:
        lines = [
            (f"{path}:{number}", line)
            for number, line in enumerate(file_lines(path, options.encoding), 1)
            if line.strip()
        ]
    if not lines:
        raise UserError(f"{options.input}: no text in it")
    model = load(options.model, options.device, options.precision)
    texts = [line for _, line in lines]
    with CountProgress("embed", len(texts)) as on_sequences:
        matches = model.similar(options.query, texts, options.top_k, on_sequences)
    for match in matches:
        place = lines[match.index][0]
        if options.json:
            dot = {"dot": match.dot} if isinstance(match, DotMatch) else {}
            print(to_json({"place": place, "cosine": match.cosine, **dot, "text": match.text}))
        else:
            print(f"{match.dot if isinstance(match, DotMatch) else match.cosine:.3f}\t{place}\t{match.text}")
