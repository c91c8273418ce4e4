"""`bothways embed M [TEXT…]`: texts as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bothways.data.stream import RowStream
from bothways.errors import UserError, as_shown
from bothways.files import require_file_writable, to_json, user_errors
from bothways.inference.bulk_formats import BULK_SUFFIXES
from bothways.mirrors import output_file
from bothways.outputs import require_new_file
from bothways.progress import CountProgress, OnProgress
from bothways.verbs.bulk import TableArguments, into_file
from bothways.verbs.flags import parse
from bothways.verbs.model_argument import load_model
from bothways.verbs.printing import say
from bothways.verbs.text_arguments import empty_lines, open_model_and_texts, single_lines

if TYPE_CHECKING:
    from bothways.inference.bulk import Job
    from bothways.predictor import Predictor


@dataclass(frozen=True)
class EmbedArguments(TableArguments):
    """out: a .npy file of float32 `[N, H]`, row n for line n, NaN for an empty line; or, for the table after `--in`,
    however many rows it has, a .parquet, .jsonl or .csv, with which the same command again goes on. Without it, JSON
    lines.

    no_normalize: vectors as long as they come. prompt_name: which of the model's prompts stands before every text; by
    default its default one, if it has any. prompt: a text of yours in its place.
    """

    no_normalize: bool = False
    prompt_name: str | None = None
    prompt: str | None = None

    def vectors(self, model: Predictor, texts: Sequence[Any], on_sequences: OnProgress) -> np.ndarray:
        """The vectors of texts, as they are asked for."""
        return model.embed(texts, not self.no_normalize, on_sequences, prompt_name=self.prompt_name, prompt=self.prompt)


def run_embed(arguments: Sequence[str]) -> None:
    """`bothways embed M [TEXT…]`."""
    options = parse(
        "embed",
        EmbedArguments,
        arguments,
        "Turn texts into vectors. Example: bothways embed model --in lines.txt --out vectors.npy",
    )
    if options.out is not None:
        if Path(options.out).suffix.lower() in BULK_SUFFIXES:
            return _embed_table(options, arguments)
        options.refuse_parts()
        with output_file(options.out, overwrite=options.overwrite) as out:
            require_file_writable(out, (".npy", *BULK_SUFFIXES), "out")
            if not options.overwrite:
                require_new_file(out, "out")
            return _embed_lines(options, out)
    options.refuse_parts()
    model, texts = open_model_and_texts("embed", options, options.precision, options.calibrate)
    with CountProgress("embed", len(texts)) as on_sequences:
        vectors = options.vectors(model, texts, on_sequences)
    for text, vector in zip(texts, vectors, strict=True):
        print(to_json({"text": text, "embedding": [round(value, 7) for value in vector.tolist()]}))


def _embed_lines(options: EmbedArguments, path: Path) -> None:
    """Write an array with a row for every line."""
    model = load_model("embed", options, options.precision, options.calibrate)
    lines = single_lines(options, {"text_column": model.checkpoint.metadata.get("options", {}).get("text_column")})
    places = [place for place, line in enumerate(lines) if line is not None]
    texts = [line for line in lines if line is not None]
    with CountProgress("embed", len(texts)) as on_sequences:
        found = options.vectors(model, texts, on_sequences)
    vectors = np.full((len(lines), found.shape[1]), np.nan, np.float32)
    vectors[places] = found
    if empty := empty_lines(lines):
        say(f"{path} has NaN for {empty}")
    with user_errors(path):
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.save(file, vectors)
        partial.replace(path)
    print(f"{as_shown(path)}: {len(vectors):,} vectors of {vectors.shape[1]}, float32")


def _embed_table(options: EmbedArguments, arguments: Sequence[str]) -> None:
    if options.texts:
        raise UserError(f"--out {options.out}: is for the rows of a table after --in, not for texts as arguments")

    if options.pair_column:
        raise UserError("--pair-column: embed gives a vector to one text a row; name it by --text-column")

    from bothways.inference.jobs import embed_job  # torch takes seconds, and --help needs none
    from bothways.inference.vectors import chosen_prompt

    def column(trained: Mapping[str, Any]) -> str:
        return options.text_column or trained.get("text_column") or "text"

    def job(model: Predictor, source: RowStream) -> Job:
        trained = model.checkpoint.metadata.get("options", {})
        prompt = chosen_prompt(model, options.prompt_name, options.prompt)
        return embed_job(model, source.columns, column(trained), not options.no_normalize, prompt)

    into_file("embed", options, arguments, job, column)
