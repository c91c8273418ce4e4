"""Runs damaged inputs and collects the faults."""

from __future__ import annotations

import contextlib
import io
import random
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import UserError
from tests.fuzzing.inputs import Damage, Models, damaged_corpus, damaged_model, damaged_rows, damaged_table

MODEL_SHARE = 0.25  # of the inputs; a model takes ten times as long as a table
ROWS_SHARE = 0.25  # of the inputs


@dataclass(frozen=True)
class Fault:
    """seed: makes the input again. place: where in the code it was raised."""

    seed: int
    description: str
    error: str
    place: str


def faults(folder: Path, seeds: Iterable[int]) -> Iterator[Fault]:
    """What went wrong with the inputs of these seeds: every exception that is no UserError."""
    models = Models(folder / "valid")
    work = folder / "work"
    work.mkdir()
    for seed in seeds:
        damage = make_damage(work, seed, models)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                damage.attempt()
        except UserError as error:
            if "\n" in str(error):
                yield Fault(seed, damage.description, "UserError of several lines", str(error)[:200])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust code is no Exception
            *_, last = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/bothways/" in frame.filename]
            frame = ours[-1] if ours else last
            place = f"{Path(frame.filename).name}:{frame.lineno} {frame.line}"
            yield Fault(seed, damage.description, f"{type(error).__name__}: {str(error)[:100]}", place)


def make_damage(work: Path, seed: int, models: Models) -> Damage:
    """The damaged input of a seed."""
    rng = random.Random(seed)
    kind = rng.random()
    if kind < MODEL_SHARE:
        return damaged_model(work, rng, models)
    if kind < MODEL_SHARE + ROWS_SHARE:
        return damaged_rows(rng)
    return damaged_table(work, rng) if rng.random() < 0.6 else damaged_corpus(work, rng)
