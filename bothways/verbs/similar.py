"""`bothways similar M QUERY --in FILE`: the lines of a file most like a text."""

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
from bothways.verbs.text_arguments import shown_text


@dataclass(frozen=True, kw_only=True)
class SimilarArguments:
    """input: a text file, of which each line is compared with the query; or a table, of which a column is.

    prompt_name: which of the model's prompts stands before the query and every line; by default those that it has for
    queries and for documents, or its default one. prompt: a text of yours in their place.

    encoding: of a file that is not UTF-8. text_column: of a table, by default that of the model's own, else `text`.
    precision: auto is bfloat16 where the hardware multiplies it, else float32; fastest is int8 where it has VNNI."""

    model: ModelToAsk = None
    query: Positional[str]
    input: str
    top_k: int = 5
    prompt_name: str | None = None
    prompt: str | None = None
    json: bool = False
    encoding: str = "utf-8"
    text_column: str | None = None
    precision: InferencePrecision = "auto"
    calibrate: str | None = None
    device: str = "auto"


def run_similar(arguments: Sequence[str]) -> None:
    """`bothways similar M QUERY --in FILE`."""
    options = parse(
        "similar",
        SimilarArguments,
        arguments,
        'Find the lines of a file most like a text. Example: bothways similar model "slow wifi" --in tickets.txt',
    )
    file = local_file(options.input)
    model = load_model("similar", options, options.precision, options.calibrate)
    trained_on = model.checkpoint.metadata.get("options", {}).get("text_column")
    lines = placed_texts(file, options.encoding, options.text_column, trained_on or "text")
    texts = [line for _, line in lines]
    with CountProgress("embed", len(texts)) as on_sequences:
        matches = model.similar(
            options.query, texts, options.top_k, on_sequences, prompt_name=options.prompt_name, prompt=options.prompt
        )
    from bothways.inference.vectors import DistanceMatch  # torch takes seconds, and --help needs none

    for match in matches:
        place = lines[match.index][0]
        if options.json:
            figures = {name: value for name, value in match.to_dict().items() if name not in ("text", "index")}
            print(to_json({"place": place, **figures, "text": match.text}))
        else:
            figure = f"{match.metric} " if isinstance(match, DistanceMatch) else ""  # of which less is more alike
            print(f"{figure}{match.ranked_by:.3f}\t{place}\t{shown_text(match.text)}")
