"""`bothways fill`, `classify`, `tag`, `answer`, `embed` and `similar`: ask a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tyro.conf import Positional

from bothways.data.stream import RowStream
from bothways.data.tables import SUFFIXES, read_rows
from bothways.errors import UserError
from bothways.files import require_file_writable, saying_what_failed
from bothways.inference.bulk import FORMATS, Job
from bothways.inference.jobs import embed_job, task_job
from bothways.inference.predictor import Predictor, load
from bothways.inference.prepared import Precision
from bothways.inference.texts import Text
from bothways.recipes import parse
from bothways.tasks.answer import Answer
from bothways.tasks.classify import Classification, Regression
from bothways.verbs.bulk import into_file
from bothways.verbs.counting import Counting
from bothways.verbs.texts import TextArguments, file_lines


def _opened(options: TextArguments, precision: Precision = "float32") -> tuple[Predictor, list[Text]]:
    model = load(options.model, options.device, precision)
    return model, options.read(model.checkpoint.state.get("options", {}))


def opened_single(options: TextArguments, precision: Precision = "float32") -> tuple[Predictor, list[str]]:
    """For verbs that know no pairs, where a tab is a blank."""
    model = load(options.model, options.device, precision)
    return model, singles(options, {"text_column": model.checkpoint.state.get("options", {}).get("text_column")})


def singles(options: TextArguments, columns: Mapping[str, Any]) -> list[str]:
    """The texts, none of them a pair; columns: as `TextArguments.read`."""
    return [text if isinstance(text, str) else "\t".join(text) for text in options.read(columns)]


def _shown(text: Text) -> str:
    return text if isinstance(text, str) else " | ".join(text)


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
    model, texts = _opened(options)
    for text in texts:
        masks = model.fill(text, options.top_k)
        if options.json:
            print(json.dumps({"text": text, "masks": [[asdict(one) for one in mask] for mask in masks]}))
            continue
        print(_shown(text))
        for mask in masks:
            print("    " + "  ".join(f"{one.token} {one.probability:.1%}" for one in mask))


@dataclass(frozen=True)
class TableArguments(TextArguments):
    """out: a .parquet or .jsonl of all the rows of `--in`, however many; the same command again goes on with it.
    precision: auto, float32, bfloat16 or int8; auto is bfloat16 where the hardware multiplies it, else float32."""

    out: str | None = None
    precision: Precision = "auto"

    def columns(self) -> dict[str, str]:
        """The columns that are named, by the option."""
        named = {"text_column": self.text_column, "pair_column": self.pair_column}
        return {option: column for option, column in named.items() if column is not None}


def _table_into_file(verb: str, options: TableArguments) -> None:
    if options.texts:
        raise UserError(f"--out {options.out}: is for the rows of a table after --in, not for texts as arguments")
    into_file(
        verb,
        options,
        lambda model, source: task_job(model, verb, source.columns, options.columns()),
        lambda trained: options.text_column or trained.get("text_column", "text"),
    )


def classify(arguments: Sequence[str]) -> None:
    """`bothways classify M [TEXT…]`."""
    options = parse(
        "classify",
        TableArguments,
        arguments,
        'Give texts their label. Example: bothways classify tickets "No light on my router"',
    )
    if options.out is not None:
        return _table_into_file("classify", options)
    model, texts = _opened(options, options.precision)
    results = model.classify(texts, Counting("classify", len(texts)))
    for text, result in zip(texts, results, strict=True):
        if options.json:
            print(json.dumps({"text": text, **asdict(result)}))
        elif isinstance(result, Classification):
            print(f"{result.label}\t{result.scores[result.label]:.1%}\t{_shown(text)}")
        elif isinstance(result, Regression):
            print(f"{result.value:.3f}\t{_shown(text)}")
        else:
            given = ", ".join(f"{label} {result.scores[label]:.1%}" for label in result.labels)
            print(f"{given or 'no label'}\t{_shown(text)}")


def tag(arguments: Sequence[str]) -> None:
    """`bothways tag M [TEXT…]`."""
    options = parse(
        "tag",
        TableArguments,
        arguments,
        'Mark entities. Example: bothways tag entities "The router stopped on 3 May"',
    )
    if options.out is not None:
        return _table_into_file("tag", options)
    model, texts = opened_single(options, options.precision)
    found: Any = model.tag(texts, Counting("tag", len(texts)))
    for text, entities in zip(texts, found, strict=True):
        if options.json:
            print(json.dumps({"text": text, "entities": [asdict(one) for one in entities]}))
            continue
        print(text)
        for one in entities:
            print(f"    {one.label}\t{one.probability:.1%}\t{one.start}–{one.end}\t{one.text}")


@dataclass(frozen=True)
class AnswerArguments:
    """context: where the answer may stand, as a text; or `--in FILE`, a text file, all of which is read.

    question: what is asked; without it each row of the table `--in` asks its own. out: with such a table, a .parquet or
    .jsonl of all its rows, however many; the same command again goes on with it. precision: auto, float32, bfloat16 or
    int8; auto is bfloat16 where the hardware multiplies it, else float32.
    """

    model: Positional[str]
    question: Positional[str | None] = None
    context: Positional[str | None] = None
    input: Annotated[str | None, tyro.conf.arg(name="in")] = None
    out: str | None = None
    question_column: str | None = None
    context_column: str | None = None
    top_k: int = 3
    json: bool = False
    precision: Precision = "auto"
    device: str = "auto"

    def columns(self) -> dict[str, str]:
        """The columns that are named, by the option."""
        named = {"question_column": self.question_column, "context_column": self.context_column}
        return {option: column for option, column in named.items() if column is not None}


def answer(arguments: Sequence[str]) -> None:
    """`bothways answer M QUESTION [CONTEXT]`."""
    options = parse(
        "answer",
        AnswerArguments,
        arguments,
        'Answer a question from a text. Example: bothways answer help "What does a red light mean?" --in router.txt',
    )
    if options.out is not None:
        if options.question is not None:
            raise UserError(f"--out {options.out}: is for the rows of a table after --in, each with its own question")
        return into_file(
            "answer",
            options,
            lambda model, source: task_job(model, "answer", source.columns, options.columns()),
            lambda trained: "line",
        )
    if options.columns():
        raise UserError("--question-column and --context-column: are for a table after --in and a file after --out")
    if options.question is None:
        raise UserError("answer: give a question, or a table of questions after --in and a file for them after --out")
    if options.top_k < 1:
        raise UserError(f"--top-k {options.top_k}: expected at least 1")
    if (options.context is None) == (options.input is None):
        raise UserError("answer: give the text that may hold the answer, either as an argument or by --in FILE")
    context = options.context if options.input is None else "\n".join(file_lines(Path(options.input)))
    found = load(options.model, options.device, options.precision).answer(options.question, context or "")
    if options.json:
        print(json.dumps(_answer_json(found)))
        return
    if not found.text:
        print(f"no answer in the text\t{found.no_answer_probability:.1%}")
    for one in [*([found] if found.text else []), *found.alternatives][: options.top_k]:
        print(f"{one.text}\t{one.probability:.1%}\tcharacters {one.start}–{one.end}")


def _answer_json(answer: Answer) -> dict[str, Any]:
    """Without the margin, which is infinite where there is nothing to compare with, and then no JSON."""
    names = ("text", "start", "end", "probability", "no_answer_probability")
    others = [_answer_json(one) for one in answer.alternatives]
    return {**{name: getattr(answer, name) for name in names}, **({"alternatives": others} if others else {})}


@dataclass(frozen=True)
class EmbedArguments(TableArguments):
    """out: a .npy file of float32 `[N, H]`; or, for the table after `--in`, however many rows it has, a .parquet or
    .jsonl, with which the same command again goes on. Without it, JSON lines.

    no_normalize: vectors as long as they come.
    """

    no_normalize: bool = False


def embed(arguments: Sequence[str]) -> None:
    """`bothways embed M [TEXT…]`."""
    options = parse(
        "embed",
        EmbedArguments,
        arguments,
        "Turn texts into vectors. Example: bothways embed model --in lines.txt --out vectors.npy",
    )
    if options.out is not None:
        require_file_writable(Path(options.out), (".npy", *FORMATS), "--out")
        if Path(options.out).suffix in FORMATS:
            return _embed_table(options)
    model, texts = opened_single(options, options.precision)
    vectors = model.embed(texts, not options.no_normalize, Counting("embed", len(texts)))
    if options.out is None:
        for text, vector in zip(texts, vectors, strict=True):
            print(json.dumps({"text": text, "embedding": [round(value, 7) for value in vector.tolist()]}))
        return
    path = Path(options.out)
    with saying_what_failed(path):
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.save(file, vectors)
        partial.replace(path)
    print(f"{path}: {len(vectors):,} vectors of {vectors.shape[1]}, float32")


def _embed_table(options: EmbedArguments) -> None:
    if options.texts:
        raise UserError(f"--out {options.out}: is for the rows of a table after --in, not for texts as arguments")

    if options.pair_column:
        raise UserError("--pair-column: embed gives a vector to one text a row; name it by --text-column")

    def column(trained: Mapping[str, Any]) -> str:
        return options.text_column or trained.get("text_column") or "text"

    def job(model: Predictor, source: RowStream) -> Job:
        trained = model.checkpoint.state.get("options", {})
        return embed_job(model, source.columns, column(trained), not options.no_normalize)

    into_file("embed", options, job, column)


@dataclass(frozen=True)
class SimilarArguments:
    """input: a text file, of which each line is compared with the query; or a table, of which the column `text` is."""

    model: Positional[str]
    query: Positional[str]
    input: Annotated[str, tyro.conf.arg(name="in")]
    top_k: int = 5
    json: bool = False
    precision: Precision = "auto"
    device: str = "auto"


def similar(arguments: Sequence[str]) -> None:
    """`bothways similar M QUERY --in FILE`."""
    options = parse(
        "similar",
        SimilarArguments,
        arguments,
        'Find the lines of a file most like a text. Example: bothways similar model "slow wifi" --in tickets.txt',
    )
    path = Path(options.input)
    if path.suffix.lower() in SUFFIXES:
        lines = [(row.source, row.text("text")) for row in read_rows(path, ["text"])]
    else:
        lines = [(f"{path}:{number}", line) for number, line in enumerate(file_lines(path), 1) if line.strip()]
    if not lines:
        raise UserError(f"{options.input}: no text in it")
    model = load(options.model, options.device, options.precision)
    texts = [line for _, line in lines]
    for match in model.similar(options.query, texts, options.top_k, Counting("embed", len(texts))):
        place = lines[match.index][0]
        if options.json:
            print(json.dumps({"place": place, "cosine": match.cosine, "text": match.text}))
        else:
            print(f"{match.cosine:.3f}\t{place}\t{match.text}")
