"""`bothways answer M QUESTION [CONTEXT]`: where a text answers a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bothways.data.tables import TableFormat
from bothways.errors import UserError
from bothways.files import to_json
from bothways.option_checks import require_at_least
from bothways.precision import InferencePrecision
from bothways.remote_files import local_file
from bothways.verbs.bulk import into_file
from bothways.verbs.flags import parse
from bothways.verbs.model_argument import load_model
from bothways.verbs.options import ModelToAsk, Positional
from bothways.verbs.parts_arguments import PartsArguments
from bothways.verbs.text_arguments import file_text, shown_text


@dataclass(frozen=True)
class AnswerArguments(PartsArguments):
    """context: where the answer may stand, as a text; or `--in FILE`, a text file, all of which is read;
    places are counted in the file's characters, carriage returns and a byte order mark included.

    question: what is asked; without it each row of the table `--in` asks its own. out: with such a table, a .parquet,
    .jsonl or .csv of all its rows, however many; the same command again goes on with it. format: what the table is,
    where its name does not say it. encoding: of a file that is not UTF-8. precision: auto is bfloat16 where the
    hardware multiplies it, else float32; fastest is int8 where it has VNNI.
    """

    model: ModelToAsk = None
    question: Positional[str | None] = None
    context: Positional[str | None] = None
    input: str | None = None
    out: str | None = None
    overwrite: bool = False
    question_column: str | None = None
    context_column: str | None = None
    top_k: int = 3
    json: bool = False
    format: TableFormat | None = None
    encoding: str = "utf-8"
    precision: InferencePrecision = "auto"
    calibrate: str | None = None
    device: str = "auto"

    @staticmethod
    def least_words(given: Mapping[str, Any]) -> int:
        """How many words there must be besides the model's. given: options, by name."""
        return 0 if "out" in given else 1 if "input" in given else 2

    def columns(self) -> dict[str, str]:
        """The columns that are named, by the option."""
        named = {"question_column": self.question_column, "context_column": self.context_column}
        return {option: column for option, column in named.items() if column is not None}


def run_answer(arguments: Sequence[str]) -> None:
    """`bothways answer M QUESTION [CONTEXT]`."""
    options = parse(
        "answer",
        AnswerArguments,
        arguments,
        'Answer a question from a text. Example: bothways answer help "What does a red light mean?" --in router.txt',
    )
    if options.out is not None:
        from bothways.inference.jobs import task_job  # torch takes seconds, and --help needs none

        if options.question is not None:
            raise UserError(f"--out {options.out}: is for the rows of a table after --in, each with its own question")
        return into_file(
            "answer",
            options,
            arguments,
            lambda model, source: task_job(model, "answer", source.columns, options.columns()),
            lambda trained: "line",
        )
    options.refuse_parts()
    if options.format is not None:
        raise UserError("--format: is of a table after --in, with a file after --out")
    if options.columns():
        raise UserError("--question-column and --context-column: are for a table after --in and a file after --out")
    if options.question is None:
        raise UserError("answer: give a question, or a table of questions after --in and a file for them after --out")
    require_at_least(1, top_k=options.top_k)
    if (options.context is None) == (options.input is None):
        raise UserError("answer: give the text that may hold the answer, either as an argument or by --in FILE")
    context = options.context if options.input is None else file_text(local_file(options.input), options.encoding)
    model = load_model("answer", options, options.precision, options.calibrate)
    found = model.answer(options.question, context or "")
    if options.json:
        print(to_json(found.to_dict()))
        return
    if not found.text:
        print(f"no answer in the text\t{found.no_answer_probability:.1%}")
    for answer in [*([found] if found.text else []), *found.alternatives][: options.top_k]:
        print(f"{shown_text(answer.text)}\t{answer.probability:.1%}\tcharacters {answer.start}–{answer.end}")
