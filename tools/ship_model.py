"""Write a shipped model from a run: weights, tokenizer, config, card, and its line in the table of models.

    python tools/ship_model.py RUN --name answers --storage int8 --base mini [--card FILE.toml] [--out FOLDER]

base: a model that is there already, whose weights are left out here where they are the same. card: the texts and scores
of the card (`tools/model_card.py`); by default packages/bothways-models/cards/NAME.toml. out: the folder that has
models.json and models/, that of the package bothways-models, whose cards are then written into docs/models.md. Paths of
this machine are left out of what is written.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bothways.checkpoint.compact import save_compact
from bothways.checkpoint.shipped import TABLE
from bothways.checkpoint.storage import STORAGES
from bothways.data.tables import read_rows
from bothways.errors import UserError, options_as_flags
from bothways.files import read_json, write_json
from bothways.predictor import Predictor, load
from bothways.train.run import RunDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.model_card import Storing, Training, read_card_texts, write_card
from tools.site_pages import write_site_pages

PACKAGE = Path(__file__).resolve().parents[1] / "packages" / "bothways-models"
LEAST_WORDS = 6  # of a text in which a word is masked
NUM_TEXTS = 200


def ship(run: Path, name: str, storage: Any, base: str | None, card: Path, out: Path) -> Storing:
    """Write OUT/models/NAME and its line in OUT/models.json. Returns what storing has cost.

    Raises UserError for what `read_card_texts` and `save_compact` refuse.
    """
    texts, directory = read_card_texts(card), out / "models" / name
    trained = load(run, "cpu", "float32")
    trained.require_trained("ship")
    metadata = without_paths(trained.checkpoint.metadata)
    loss = save_compact(replace(trained.checkpoint, metadata=metadata), directory, storage, base)
    storing = Storing(storage, base, loss, compared(trained, load(directory, "cpu", "float32"), sample_texts()))
    record = RunDirectory(run) if (run / "run.json").exists() else None  # a model's directory has no metrics
    metrics, settings = (record.metrics(), record.described().get("options", {})) if record else ([], {})
    write_card(name, directory, texts, Training(metrics, settings), storing)
    table = read_json(out / TABLE) if (out / TABLE).exists() else {}
    write_json(out / TABLE, {**table, name: {"verbs": texts.verbs, "about": texts.about}})
    return storing


def without_paths(value: Any) -> Any:
    """A value of JSON with the last part of each path in place of it: where a file lies is of the machine alone."""
    if isinstance(value, dict):
        return {name: without_paths(entry) for name, entry in value.items() if name not in ("command", "store_path")}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "./", "../")) else value


def sample_texts() -> list[str]:
    """Texts to compare on: the packaged help desk's tickets."""
    file = resources.files("bothways") / "samples" / "helpdesk" / "tickets-test.jsonl"
    with resources.as_file(file) as path:
        texts = [row.text("text") for row in read_rows(str(path), ["text"])]
    return [text for text in texts if len(text.split()) >= LEAST_WORDS][:NUM_TEXTS]


def compared(trained: Predictor, stored: Predictor, texts: Sequence[str]) -> dict[str, float]:
    """How near a stored model is to the trained one: the least and mean cosine of the texts' vectors; of a masked-LM
    head the share of masked words for which both have the same first guess."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of words that the vocabulary lacks, which both models lack
        cosines = (trained.embed(texts) * stored.embed(texts)).sum(1)
        figures = {"Least cosine of vectors": float(cosines.min()), "mean cosine": float(cosines.mean())}
        if "masked-LM" in trained.model.head.abilities:
            masked = [_with_mask(text) for text in texts]
            guesses = [[fills[0][0].token for fills in model.fill(masked, 1)] for model in (trained, stored)]
            same = np.mean([a == b for a, b in zip(*guesses, strict=True)])
            figures["Same first guess for a masked word"] = float(same)
    return figures


def _with_mask(text: str) -> str:
    """A text whose middle word is masked."""
    words = text.split()
    words[len(words) // 2] = "[MASK]"
    return " ".join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--storage", choices=STORAGES, default="int8")
    parser.add_argument("--base")
    parser.add_argument("--card", type=Path)
    parser.add_argument("--out", type=Path, default=PACKAGE / "bothways_models")
    given = parser.parse_args(arguments)
    card = given.card or PACKAGE / "cards" / f"{given.name}.toml"
    try:
        with options_as_flags():
            storing = ship(given.run, given.name, given.storage, given.base, card, given.out)
    except UserError as error:
        print(f"ship_model: {error}", file=sys.stderr)
        return 2
    if given.out == parser.get_default("out"):
        write_site_pages()
    loss = storing.loss
    print(f"{given.out / 'models' / given.name}: {loss.bytes:,} bytes, {loss.shared} of {loss.tensors} tensors shared")
    print(f"weights differ by {loss.max_error:.2e} at most, {loss.mean_error:.2e} on average")
    print("\n".join(f"{name}: {value:.5f}" for name, value in storing.figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
