"""What the benchmarks share: the data sets' folder, a table on the screen, the same table as JSON."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent


def shared_data() -> Path:
    """The folder of real data sets beside the repository; exits where it is absent."""
    folder = HERE.parents[1] / "shared" / "data"
    if not folder.is_dir():
        sys.exit("this benchmark reads ../shared/data beside the repository, which is not here")
    return folder


def machine() -> str:
    """One line on what the figures were measured on."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}{gpu}"


def show(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]], **notes: Any) -> None:
    """Print a Markdown table and write it to `benchmarks/results/NAME.json`."""
    print(f"\n{name} ({machine()})\n")
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(f"{value:,.4g}" if isinstance(value, float) else str(value) for value in row) + " |")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    content: Mapping[str, Any] = {"machine": machine(), "header": header, "rows": rows, **notes}
    (results / f"{name}.json").write_text(json.dumps(content, indent=2, default=str) + "\n")
