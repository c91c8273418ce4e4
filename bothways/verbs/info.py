"""`bothways info PATH`: what lies there, how good it is, what it is made of, and what to type next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.checkpoint.shipped import ShippedModel, shipped_models
from bothways.errors import UserError, closest
from bothways.files import to_json
from bothways.remote_files import url_of
from bothways.verbs.describe_files import describe_file, describe_folder, describe_parts
from bothways.verbs.describe_text import describe_store, describe_unfinished_store, describe_vocabulary
from bothways.verbs.description import Description
from bothways.verbs.flags import parse
from bothways.verbs.options import Positional
from bothways.verbs.recipes import split_recipe
from bothways.verbs.screen import print_lines


@dataclass(frozen=True)
class InfoArguments:
    """batch: show the batch of this step in words, of a run or, with a recipe, of a store. Steps count from 1.
    all: with batch, every sequence of it, not the first ones alone."""

    path: Positional[str]
    batch: int | None = None
    all: bool = False
    json: bool = False


def run_info(arguments: Sequence[str]) -> None:
    """`bothways info PATH [--recipe R] [--batch K]`."""
    recipe, rest = split_recipe(arguments)
    options = parse(
        "info",
        InfoArguments,
        rest,
        "Say what a file or folder is: a store, a model, a run, a vocabulary, a table, text; show the card of a "
        "shipped model; of a store also what a --recipe would see of it; with --batch K the batch of step K in words. "
        "Example: bothways info store --recipe bert-mini",
        table="pretrain",
    )
    if url_of(options.path) is not None:
        raise UserError(f"{options.path}: info looks at what is on this machine; other verbs read URLs")
    path = Path(options.path)
    if options.batch is not None:
        from bothways.verbs.describe_batch import print_batch  # torch takes seconds

        print_batch(path, options.batch, recipe, options.all)
        return
    found = look_at(path, recipe)
    if options.json:
        print(to_json(found.facts))
        return
    print_lines(found.lines)
    if found.next_command:
        print_lines([f"next: {found.next_command}"])


def look_at(path: Path, recipe: str | None = None) -> Description:
    """What lies at a path. recipe: of pretraining, by which a store's epochs are told.

    Raises UserError where nothing does.
    """
    if not path.exists() and (shipped := shipped_models().get(str(path))) is not None:
        return _describe_shipped(shipped)
    if not path.exists():
        parts = path.with_name(f"{path.name}.parts")
        if parts.is_dir():
            return describe_parts(parts)
        neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such path{closest(path.name, [*neighbours, *shipped_models()])}")
    if path.is_file():
        return describe_file(path)
    if path.name.endswith(".parts") and (path / "manifest.json").exists():
        return describe_parts(path)
    if (path / "manifest.json").exists():
        return describe_store(path, recipe)
    if (path / "progress.json").exists():
        return describe_unfinished_store(path)
    kinds: tuple[tuple[tuple[str, ...], Callable[[Path], Description]], ...] = (
        (("demo.json",), _describe_demo),
        (("config.json", "modules.json"), _describe_model),
        (("metrics.jsonl", "run.json", "checkpoints"), _describe_run),
        (("vocab.txt", "tokenizer.json"), describe_vocabulary),
    )
    for names, describe in kinds:
        if any((path / name).exists() for name in names):
            return describe(path)
    return describe_folder(path)


# Models are read by torch, which takes seconds to import; all else is told without it.


def _describe_demo(path: Path) -> Description:
    from bothways.verbs.describe_models import describe_demo

    return describe_demo(path)


def _describe_model(path: Path) -> Description:
    from bothways.verbs.describe_models import describe_model_directory

    return describe_model_directory(path)


def _describe_shipped(model: ShippedModel) -> Description:
    from bothways.verbs.describe_models import describe_shipped_model

    return describe_shipped_model(model)


def _describe_run(path: Path) -> Description:
    from bothways.verbs.describe_models import describe_run

    return describe_run(path)
