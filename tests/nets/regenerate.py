"""Write fixtures anew, by the code as it is now:

    python -m tests.nets.regenerate names help          # golden files that were meant to change
    python -m tests.nets.regenerate all-golden
    python -m tests.nets.regenerate outcomes            # arithmetic that was meant to change by rounding

`text`, `models` and `runs` are other things: they are what an earlier Bothways left on a disk, and are to be read by
every later one. To write them anew is to give up what there is of earlier runs, stores and models.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.nets.golden import FIXTURES, PINNED, as_json, as_rounded_json, run, write
from tests.nets.models import CONFIGS, FINETUNED, NAMES, assemble


def text(scratch: Path) -> None:
    """The vocabulary and the store of fixtures/corpus.txt."""
    from tests.nets import test_store

    for name in ("vocabulary", "store"):
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
    test_store.learn_vocabulary(FIXTURES / "vocabulary")
    test_store.prepare_store(FIXTURES / "store")


def models(scratch: Path) -> None:
    """What lies beside a model's weights."""
    pieces = len((FIXTURES / "vocabulary" / "vocab.txt").read_text(encoding="utf-8").splitlines())
    shutil.rmtree(FIXTURES / "models", ignore_errors=True)
    for name, config in CONFIGS.items():
        write(f"models/{name}/config.json", as_json({**config, "vocab_size": pieces}))
    for base in ("pretraining", "causal"):
        assemble(base, scratch / base)
    for name, (base, *arguments) in FINETUNED.items():
        rows = [FIXTURES / "rows" / one if one.endswith(".jsonl") else one for one in arguments]
        out = scratch / f"{name}-run"
        run("finetune", *rows, "--model", scratch / base, "--out", out, "--steps", "1", "--device", "cpu")
        made = out / "model"
        for file in ("model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json"):
            (made / file).unlink()
        state = json.loads((made / "bothways.json").read_text(encoding="utf-8"))
        state["provenance"] = {"bothways": "0.1.0", "model": "base"}
        (made / "bothways.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        shutil.copytree(made, FIXTURES / "models" / name)


def runs(scratch: Path) -> None:
    """Runs that were stopped, and what they come to when they go on."""
    from tests.nets import test_runs

    test_runs.make_fixtures(scratch)


def names(scratch: Path) -> None:
    from tests.nets import test_names

    write("names.txt", test_names.snapshot(assemble("pretraining", scratch / "pretraining")))


def help(scratch: Path) -> None:
    from tests.nets import test_help

    shutil.rmtree(FIXTURES / "help", ignore_errors=True)
    for command in test_help.COMMANDS:
        write(test_help.golden(command), test_help.snapshot(command))


def checkpoints(scratch: Path) -> None:
    from tests.nets import test_checkpoints

    write("checkpoints.json", test_checkpoints.snapshot(_all_models(scratch), scratch))


def batches(scratch: Path) -> None:
    from tests.nets import test_store

    for recipe in test_store.RECIPES:
        write(f"batches/{recipe}.txt", test_store.batches(recipe))
    write("batches/info.txt", test_store.info())


def predictions(scratch: Path) -> None:
    from tests.nets import test_predictions

    folder = _all_models(scratch)
    for name, ask in test_predictions.QUESTIONS.items():
        write(f"predictions/{name}.json", as_rounded_json(ask(folder)))


def _all_models(scratch: Path) -> Path:
    for name in NAMES:
        assemble(name, scratch / "models" / name)
    return scratch / "models"


def outcomes(scratch: Path) -> None:
    """What `runs` come to; the stopped ones stay."""
    from tests.nets import test_runs

    test_runs.write_outcomes(scratch)


GOLDEN: tuple[Callable[[Path], None], ...] = (names, help, checkpoints, batches, predictions)
KEPT: tuple[Callable[[Path], None], ...] = (text, models, runs, outcomes)


def main(chosen: list[str]) -> int:
    """Write what is named; says what could be where nothing is."""
    known = {one.__name__: one for one in (*KEPT, *GOLDEN)}
    listed = [one.__name__ for one in GOLDEN] if chosen == ["all-golden"] else chosen
    if not listed or not set(listed) <= set(known):
        print(f"{__doc__}\nknown: {', '.join(known)}")
        return 2
    for name in listed:
        with tempfile.TemporaryDirectory() as scratch:
            known[name](Path(scratch))
        print(f"{name}: written")
    return 0


if __name__ == "__main__":
    assert "torch" not in sys.modules
    os.environ.update(PINNED)
    sys.exit(main(sys.argv[1:]))
