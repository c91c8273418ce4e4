"""Fine-tune for every task, as one process or as one of several: `torchrun … -m tests.train.finetune_tasks FOLDER OUT`.

FOLDER has the models `base` and `causal`; OUT becomes a folder of runs by the names of `CASES`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

import bothways as bw
from bothways.inference import engine
from bothways.train.distributed import join_world
from tests.tasks.test_instruct import REPLIES
from tests.train.running import StopAfter
from tests.train.test_soft_scores import CASES as TAUGHT

PAIRS = TAUGHT["paraphrases"][2]
CHOICES = [
    {"text": row["text"], "choices": [row["pair"], "not a cat", "in"], "label": n % 3}
    for n, row in enumerate(TAUGHT["similar"][2])
]
CASES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    **{name: case for name, case in TAUGHT.items() if name not in ("weights", "pairs", "regression")},
    "choose": ("choose", {}, CHOICES),
    "instruct": ("instruct", {}, [*REPLIES, REPLIES[0]]),
    "taught": ("similar", {"teacher": "paraphrases"}, PAIRS),
}
# Six rows make a step of five and a step of one, of which the second process has no row.
OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 5, "lr": 1e-3, "dropout": 0.0, "precision": "float32"}
FEW_TOKENS = 24  # of a batch in evaluation, and of a micro-batch in training: each process has several
STOPPED_AFTER = 3  # steps


def finetune_all(folder: Path, out: Path) -> None:
    """The runs of `CASES`."""
    for name, (task, given, rows) in CASES.items():
        options = {"micro_batch_tokens": FEW_TOKENS, **OPTIONS, **given}
        if "teacher" in options:
            options["teacher"] = out / options["teacher"]
        model = folder / ("causal" if task == "instruct" else "base")
        result = bw.finetune(task, model, rows, rows, out / name, options)
        assert result.evaluation is not None
        assert len(result.evaluation.predictions) == len(rows)


def evaluate_all(runs: Path) -> dict[str, dict[str, Any]]:
    """The figures of the runs of `CASES`."""
    return {name: bw.evaluate(runs / name, rows, quiet=True) for name, (_, _, rows) in CASES.items()}


def classify(folder: Path, run: Path, stop: int = -1) -> None:
    """The run `classify`, stopped after so many steps, or to its end."""
    task, given, rows = CASES["classify"]
    options = {"micro_batch_tokens": FEW_TOKENS, **OPTIONS, **given}
    bw.finetune(task, folder / "base", rows, rows, run, options, progress=StopAfter(stop))


if __name__ == "__main__":
    engine.inference_batch_tokens = lambda device: FEW_TOKENS
    of_models, of_runs = Path(sys.argv[1]), Path(sys.argv[2])
    with join_world(torch.device("cpu")):
        finetune_all(of_models, of_runs)
        figures = evaluate_all(of_models / "one")
    classify(of_models, of_runs / "stopped", STOPPED_AFTER)  # these find one another again
    classify(of_models, of_models / "resumed")  # where one process has stopped
    Path(of_runs / f"figures-{os.environ['RANK']}.json").write_text(json.dumps(figures))
