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

from bothways.data.tables import SUFFIXES, read_rows
from bothways.errors import UserError
from bothways.files import require_file_writable, saying_what_failed
from bothways.inference.predictor import Predictor, load
from bothways.inference.texts import Text
from bothways.recipes import parse
from bothways.tasks.answer import Answer
from bothways.tasks.classify import Classification, Regression
from bothways.verbs.counting import Counting
from bothways.verbs.texts import TextArguments, file_lines


def _opened(options: TextArguments) -> tuple[Predictor, list[Text]]:
    model = load(options.model, options.device)
    return model, options.read(model.checkpoint.state.get("options", {}))


def opened_single(options: TextArguments) -> tuple[Predictor, list[str]]:
    """For verbs that know no pairs, where a tab is a blank."""
    model = load(options.model, options.device)
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


def classify(arguments: Sequence[str]) -> None:
    """`bothways classify M [TEXT…]`."""
    options = parse(
        "classify",
        TextArguments,
        arguments,
        'Give texts their label. Example: bothways classify tickets "No light on my router"',
    )
    model, texts = _opened(options)
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
        TextArguments,
        arguments,
        'Mark entities. Example: bothways tag entities "The router stopped on 3 May"',
    )
    model, texts = opened_single(options)
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
    """context: where the answer may stand, as a text; or `--in FILE`, a text file, all of which is read."""

    model: Positional[str]
    question: Positional[str]
    context: Positional[str | None] = None
    input: Annotated[str | None, tyro.conf.arg(name="in")] = None
    top_k: int = 3
    json: bool = False
    device: str = "auto"


def answer(arguments: Sequence[str]) -> None:
    """`bothways answer M QUESTION [CONTEXT]`."""
    options = parse(
        "answer",
        AnswerArguments,
        arguments,
        'Answer a question from a text. Example: bothways answer help "What does a red light mean?" --in router.txt',
    )
    if options.top_k < 1:
        raise UserError(f"--top-k {options.top_k}: expected at least 1")
    if (options.context is None) == (options.input is None):
        raise UserError("answer: give the text that may hold the answer, either as an argument or by --in FILE")
    context = options.context if options.input is None else "\n".join(file_lines(Path(options.input)))
    found = load(options.model, options.device).answer(options.question, context or "")
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
class EmbedArguments(TextArguments):
    """out: a .npy file of float32 `[N, H]`; without it, JSON lines. no_normalize: vectors as long as they come."""

    out: str | None = None
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
        require_file_writable(Path(options.out), (".npy",), "--out")
    model, texts = opened_single(options)
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


@dataclass(frozen=True)
class SimilarArguments:
    """input: a text file, of which each line is compared with the query; or a table, of which the column `text` is."""

    model: Positional[str]
    query: Positional[str]
    input: Annotated[str, tyro.conf.arg(name="in")]
    top_k: int = 5
    json: bool = False
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
    model = load(options.model, options.device)
    texts = [line for _, line in lines]
    for match in model.similar(options.query, texts, options.top_k, Counting("embed", len(texts))):
        place = lines[match.index][0]
        if options.json:
            print(json.dumps({"place": place, "cosine": match.cosine, "text": match.text}))
        else:
            print(f"{match.cosine:.3f}\t{place}\t{match.text}")
