"""Where a model comes from: software, machine, date, the text or the tables, and the settings that were in effect.

A run's model keeps it as `provenance` in bothways.json; reports and `bothways info` show it.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bothways.data.store import TokenStore
from bothways.errors import as_shown
from bothways.hardware import choose_device, micro_batch_tokens
from bothways.precision import choose_precision
from bothways.train.evaluate import RowSet, Table
from bothways.train.options import TrainOptions
from bothways.version import __version__

CPU_FILE = Path("/proc/cpuinfo")  # Linux alone; elsewhere Python's own word has to do


def of_this_machine(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Versions, machine and date. processes: that train together."""
    return {
        "bothways": __version__,
        "torch": torch.__version__,
        "machine": _machine(device, processes),
        "date": datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
    }


def _machine(device: torch.device, processes: int) -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [f"{_processor()}, {cores} core{'s' if cores > 1 else ''}"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join([*parts, f"{processes} process{'es' if processes > 1 else ''}"])


def _processor() -> str:
    """The processor's name as people know it, or its architecture."""
    if CPU_FILE.exists():
        lines = (line.partition(":") for line in CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines())
        names = [name.strip() for key, _, name in lines if key.strip() == "model name"]
        if names:
            return f"{names[0]} ({platform.machine()})"
    return platform.machine()


def of_text(store: TokenStore) -> dict[str, Any]:
    """The text that a store was prepared from: its files, and how much of it is trained on and held out."""
    train, held_out = store.split("train"), store.split("validation")
    return {
        "store": store.fingerprint,
        "store_path": as_shown(store.directory),
        "tokenizer": store.tokenizer_fingerprint,
        "text": store.sources_in_words(),
        "documents": train.documents,
        "tokens": train.tokens,
        "held_out_documents": held_out.documents,
        "held_out_tokens": held_out.tokens,
    }


def of_tables(train: tuple[Table, RowSet], evaluation: tuple[Table | float | None, RowSet]) -> dict[str, Any]:
    """The tables that were learnt from and measured on, and how many rows of them. A number is a share held out."""
    told: dict[str, Any] = {}
    for name, (table, rows) in {"train": train, "evaluation": evaluation}.items():
        if table is None:
            continue
        if isinstance(table, int | float):
            told[name] = f"{table:g} of the training table, held out"
        else:
            told[name] = as_shown(table) if isinstance(table, str | Path) else "rows given in Python"
        told[f"{name}_rows"] = len(rows.rows)
    return told


def in_effect(options: Mapping[str, Any], settings: TrainOptions, **derived: Any) -> dict[str, Any]:
    """A run's options as they came to be: `auto` and what was left open are replaced by what was taken, and options
    that were not used (None, or empty) are left out.

    options: as the user gave them. settings: the loop's. derived: other values that followed from data and model.
    """
    device = choose_device(settings.device)
    taken = {name: getattr(settings, name) for name in options if hasattr(settings, name)} | {
        "device": str(device),
        "precision": str(choose_precision(settings.precision, device)).removeprefix("torch."),
        "micro_batch_tokens": micro_batch_tokens(settings.micro_batch_tokens, device),
        **derived,
    }
    values = {**options, **taken}
    return {name: value for name, value in values.items() if value is not None and value != () and value != []}
