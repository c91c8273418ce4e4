"""What makes a run the same run, and how another differs, in the user's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bothways.outputs import option_change, option_changes

# Options that say how long a run is. They may change: what follows is said when it goes on.
LENGTH_OPTIONS = ("steps", "epochs", "hours", "minutes")
# Options about the machine, the screen, and what is kept: no reason for a run to be another.
RUNNING_OPTIONS = (
    *LENGTH_OPTIONS, "device", "precision", "compile", "parallel", "micro_batch_tokens", "log_every", "evaluate_every",
    "validation_tokens", "checkpoint_every", "keep_checkpoints", "patience", "tensorboard", "profile",
)  # fmt: skip
# What a run's identity has as a fingerprint, in words, for a difference that no option or file explains.
FINGERPRINTED = {
    "store": "the store has other text in it",
    "tokenizer": "the vocabulary is another",
    "model": "the weights that it starts from are others",
    "rows": "the training rows are others",
    "evaluation rows": "the evaluation rows are others",
    "teacher": "the teacher is another",
    "teaching": "what is learnt of the teacher is other",
    "objective": "the objective, the masking or the length of examples is another",
    "task": "the options of the task are others",
    "phases": "the phases are others",
}


def run_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], there: Mapping[str, Any], asked: Mapping[str, Any]
) -> list[str]:
    """How two runs differ, in words; empty where they are the same.

    before, now: their identities, fingerprints and values by name, which decide. there, asked: their run.json, which
    explain; an earlier Bothways wrote down less.
    """
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not differing:
        return []
    works = [_work(run) for run in (there, asked)]
    if None not in works and works[0] != works[1]:
        return [f"the run there is {works[0]}, this is {works[1]}"]
    return _done_otherwise(there, asked) or [
        FINGERPRINTED.get(name) or option_change(name, before.get(name), now.get(name)) for name in differing
    ]


def _work(run: Mapping[str, Any]) -> str | None:
    """What a run.json is of, in words; None of one that does not say."""
    if "task" in run:
        return f"fine-tuning for {run['task']}"
    return "pretraining" if "store" in run else None


def _done_otherwise(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What a person did otherwise, by two run.json."""
    changes = []
    inputs = there.get("inputs", {})
    for name, now in asked.get("inputs", {}).items():
        before = inputs.get(name, now)
        paths = [entry["path"] if isinstance(entry, dict) else entry for entry in (before, now)]
        contents = [entry["sha256"] if isinstance(entry, dict) else None for entry in (before, now)]
        if paths[0] == paths[1] and contents[0] != contents[1]:
            changes.append(f"{paths[1]} has changed since")
        elif paths[0] != paths[1] and (contents[0] != contents[1] or contents[0] is None):
            changes.append(option_change(name, *paths))
    for kind in ("options", "task_options"):
        changes += option_changes(there.get(kind, {}), asked.get(kind, {}), RUNNING_OPTIONS)
    return changes
