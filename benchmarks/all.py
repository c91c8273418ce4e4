"""The benchmarks on a CPU in order of worth, in a given time, and their tables in docs/benchmarks.md.

    python benchmarks/all.py --minutes 60 [--parts pretrain encode] [--page docs/benchmarks.md]

Each part is a script beside this one, in a small form, in a process of its own; one that needs more minutes than are
left is skipped, and one that fails or takes longer than its limit leaves the others their time. What `common.show`
leaves in `results/NAME.json` becomes a table of the page, between its two markers; a row there says the processor, the
instructions and the precision. Rows of other processors, and tables of parts that did not run, stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by benchmarks/all.py -->", "<!-- end of what benchmarks/all.py writes -->"
MACHINE_COLUMNS = ("processor", "instructions", "precision")
LIMIT = 3.0  # times a part's minutes, after which it is ended: machines differ


@dataclass(frozen=True)
class Part:
    """command: the script and its arguments. minutes: that it takes on two AVX2 cores, about."""

    name: str
    command: tuple[str, ...]
    minutes: float


# In order of worth.
PARTS = (
    Part("pretrain", ("pretrain.py", "--sizes", "mini", "--rounds", "1", "--steps", "4"), 6),
    Part("encode", ("encode.py", "--sizes", "minilm", "--rounds", "2", "--texts", "200"), 4),
    Part("latency", ("latency.py", "--sizes", "minilm", "--calls", "50"), 3),
    Part("finetune", ("finetune.py", "speed", "--data", "sst2", "mrpc", "--steps", "10", "--rounds", "1"), 6),
    Part("training-kernels", ("training_kernels.py", "--rounds", "6"), 3),
    Part("generate", ("generate.py", "--sizes", "mini", "--vocabularies", "30522", "--rounds", "2"), 3),
    Part("serve", (
        "serve.py", "--minutes", "4", "--servers", "bothways", "fastapi", "onnx", "--verbs", "embed",
        "--texts", "banking", "--clients", "8",
    ), 4),
    Part("bulk", ("bulk.py", "--rows", "20000"), 4),
    Part("pretrain_loss", ("pretrain_loss.py", "--steps", "50"), 5),
    Part("prepare", ("prepare.py", "--rounds", "1"), 6),
    Part("optimizers", ("optimizers.py",), 10),
)  # fmt: skip


def run_parts(parts: Sequence[Part], minutes: float) -> list[str]:
    """Run what there is time for; returns how each part ended, a line each."""
    ends, said = time.monotonic() + 60 * minutes, []
    for part in parts:
        left = (ends - time.monotonic()) / 60
        if left < part.minutes:
            said.append(f"{part.name}: left out, it takes {part.minutes:g} minutes and {left:.1f} are left")
            print(said[-1], flush=True)
            continue
        print(f"{part.name}: {' '.join(part.command)}", flush=True)
        began = time.monotonic()
        outcome = run_part(part, 60 * min(left, LIMIT * part.minutes))
        said.append(f"{part.name}: {outcome}, {(time.monotonic() - began) / 60:.1f} minutes")
        print(said[-1], flush=True)
    return said


def run_part(part: Part, seconds: float) -> str:
    """Run a part's script, its output on this one's; returns how it ended."""
    script, *arguments = part.command
    process = subprocess.Popen([sys.executable, str(HERE / script), *arguments], start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with all that it started
        process.wait()
        return f"ended after {seconds / 60:.1f} minutes without a table"
    return "done" if code == 0 else f"failed with exit code {code}"


def records(folder: Path, since: float) -> dict[str, dict[str, Any]]:
    """What scripts have left in a folder since then, by the name of the table."""
    paths = sorted(folder.glob("*.json"))
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths if path.stat().st_mtime >= since}
    return {name: record for name, record in found.items() if set(MACHINE_COLUMNS) <= set(record)}


def write_tables(page: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Put tables between the page's markers. Exits where the page has none."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{page}: expected the lines {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    tables = read_tables(inside)
    for name, record in found.items():
        tables[name] = merged(tables.get(name, []), record)
    written = "".join(f"\n### {name}\n\n" + "".join(f"{line}\n" for line in tables[name]) for name in tables)
    page.write_text(f"{before}{BEGIN}\n{written}\n{END}{after}", encoding="utf-8")


def read_tables(text: str) -> dict[str, list[str]]:
    """The lines of each table, by its heading."""
    tables: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("### "):
            tables[line.removeprefix("### ")] = []
        elif line.startswith("|"):
            list(tables.values())[-1].append(line)
    return tables


def merged(old: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    """A table's lines: the record's rows, and the old ones of other machines where their columns are the same."""
    header = _line([*MACHINE_COLUMNS, *record["header"]])
    machine = [record[name] for name in MACHINE_COLUMNS]
    rows = [_line([*machine, *row]) for row in record["rows"]]
    own = _line(machine).removesuffix(" |")
    others = [line for line in old[2:] if not line.startswith(f"{own} |")] if old[:1] == [header] else []
    return [header, "|" + "---|" * header.count(" | ") + "---|", *others, *rows]


def _line(cells: Sequence[Any]) -> str:
    """A line of a Markdown table; numbers that are not whole with four digits."""
    shown = (f"{cell:,.4g}" if isinstance(cell, float) else str(cell).replace("|", "/") for cell in cells)
    return f"| {' | '.join(shown)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS])
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args()
    began = time.time()
    parts = [part for part in PARTS if chosen.parts is None or part.name in chosen.parts]
    said = run_parts(parts, chosen.minutes)
    found = records(HERE / "results", began)
    write_tables(chosen.page, found)
    print("\n".join(["", *said, f"{chosen.page}: {', '.join(found) or 'no table'} written"]))


if __name__ == "__main__":
    main()
