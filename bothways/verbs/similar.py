"""`bothways similar M QUERY --in FILE`: the lines of a file most like a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.files import to_json
from bothways.inference.vectors import DotMatch
from bothways.precision import InferencePrecision
from bothways.progress import CountProgress
from bothways.verbs.flags import parse
from bothways.verbs.line_input import placed_texts
from bothways.verbs.model_argument import load_model
from bothways.verbs.options import ModelToAsk, Positional
from bothways.verbs.text_arguments import shown_text


@dataclass(frozen=True, kw_only=True)
class SimilarArguments:
    """input: a text file, of which each line is compared with the query; or a table, of which the column `text` is.
    encoding: of a file that is not UTF-8."""

    model: ModelToAsk = None
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
    lines = placed_texts(Path(options.input), options.encoding)
    model = load_model("similar", options, options.precision)
    texts = [line for _, line in lines]
    with CountProgress("embed", len(texts)) as on_sequences:
        matches = model.similar(options.query, texts, options.top_k, on_sequences)
    for match in matches:
        place = lines[match.index][0]
        if options.json:
            dot = {"dot": match.dot} if isinstance(match, DotMatch) else {}
            print(to_json({"place": place, "cosine": match.cosine, **dot, "text": match.text}))
        else:
            print(
                f"{match.dot if isinstance(match, DotMatch) else match.cosine:.3f}\t{place}\t{shown_text(match.text)}"
            )
