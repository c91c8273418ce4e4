"""`bothways rerank M QUERY --in FILE`: the lines of a file in order of how well they go with a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.files import to_json
from bothways.precision import InferencePrecision
from bothways.progress import CountProgress
from bothways.remote_files import local_file
from bothways.verbs.flags import parse
from bothways.verbs.line_input import placed_texts
from bothways.verbs.model_argument import load_model
from bothways.verbs.options import ModelToAsk, Positional


@dataclass(frozen=True, kw_only=True)
class RerankArguments:
    """input: a text file, of which each line is read with the query; or a table, of which a column is.

    label: of a classifier, whose probability orders the lines; by default the label of pairs that go together.

    encoding: of a file that is not UTF-8. text_column: of a table, by default `text`.
    precision: auto is bfloat16 where the hardware multiplies it, else float32; fastest is int8 where it has VNNI."""

    model: ModelToAsk = None
    query: Positional[str]
    input: str
    top_k: int = 5
    label: str | None = None
    json: bool = False
    encoding: str = "utf-8"
    text_column: str | None = None
    precision: InferencePrecision = "auto"
    calibrate: str | None = None
    device: str = "auto"


def run_rerank(arguments: Sequence[str]) -> None:
    """`bothways rerank M QUERY --in FILE`."""
    options = parse(
        "rerank",
        RerankArguments,
        arguments,
        "Order the lines of a file by how well a classifier or regressor of pairs finds them to go with a query. "
        'Example: bothways rerank model "slow wifi" --in tickets.txt',
    )
    lines = placed_texts(local_file(options.input), options.encoding, options.text_column)
    model = load_model("rerank", options, options.precision, options.calibrate)
    with CountProgress("rerank", len(lines)) as progress:
        texts = [line for _, line in lines]
        ranked = model.rerank(options.query, texts, options.top_k, label=options.label, on_progress=progress)
    for found in ranked:
        place = lines[found.index][0]
        if options.json:
            print(to_json({"place": place, "score": found.score, "text": found.text}))
        else:
            print(f"{found.score:.3f}\t{place}\t{found.text}")
