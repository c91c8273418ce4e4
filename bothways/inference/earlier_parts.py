"""Parts of a table's results as the first version left them, taken over into a manifest.

Then a part was named `FIRST-END` by its rows, was as large as twenty seconds of work, and the manifest held the job
alone. The parts stay what they are; the rows behind them are cut now.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.files import read_json, to_json, user_errors, written_aside
from bothways.outputs import begin_anew
from bothways.parts import MANIFEST, NUMBER_DIGITS
from bothways.text.extents import Extent

_MARKER = re.compile(r"(\d{12})-(\d{12})\.json")


def is_earlier(folder: Path) -> bool:
    """Whether a folder has parts of the first version."""
    return (folder / MANIFEST).exists() and any(map(_MARKER.fullmatch, os.listdir(folder)))


def take_over(folder: Path, cut: Callable[[int], Mapping[str, Any]]) -> None:
    """Number the parts, and write the manifest that has them and the rest.

    cut: called with how many rows are done; what the manifest holds beside the job, `parts` being those of the rest.
    Raises UserError where a part between others is missing.
    """
    manifest, done, extents, before = read_json(folder / MANIFEST), 0, [], []
    if "parts" not in manifest:
        for number, name in enumerate(sorted(filter(_MARKER.fullmatch, os.listdir(folder))), 1):
            first, end = map(int, name.removesuffix(".json").split("-"))
            if first != done:
                raise UserError(f"{folder}: the part of row {done + 1} is missing; {begin_anew()}")
            extents.append(Extent(first, end, rows=end - first, first=number == 1, last=False, by_rows=True).to_json())
            before += _number(folder, name, number, end - first)
            done = end
        rest = cut(done)
        with user_errors(folder), written_aside(folder / MANIFEST) as aside:
            whole = {"job": manifest, **rest, "parts": [*extents, *rest["parts"]]}
            aside.write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in before or folder.glob("*-*"):
        path.unlink(missing_ok=True)


def _number(folder: Path, name: str, number: int, rows: int) -> list[Path]:
    """Give a part its number as a second name; returns the files of the first."""
    marker = folder / name
    [results] = [path for path in folder.glob(f"{marker.stem}.*") if path != marker]
    numbered = folder / f"{number:0{NUMBER_DIGITS}d}{results.suffix}"
    content = {"unknown": {}, **read_json(marker), "rows": rows}
    with user_errors(folder):
        numbered.unlink(missing_ok=True)
        os.link(results, numbered)
        with written_aside(numbered.with_suffix(".json")) as aside:
            aside.write_text(to_json(content, ensure_ascii=False) + "\n", encoding="utf-8")
    return [results, marker]
