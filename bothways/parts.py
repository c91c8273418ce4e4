"""A large job as a folder of complete parts, which become one file in the end; a killed job goes on where it was.

`OUT.parts/manifest.json` holds what the results depend on. A part is two files: `FIRST-END.SUFFIX`, the results of the
items FIRST to END - 1, and then its completion marker, `FIRST-END.json`. A part exists once its marker exists. What is
in either file is for the job to say.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.errors import UserError, option
from bothways.files import read_json, sync, user_errors, write_json
from bothways.outputs import begin_anew, discard, made_otherwise, option_changes, require_new_file

Changes = Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]

MANIFEST = "manifest.json"
MARKERS = "[0-9]*-[0-9]*.json"
NUMBER_DIGITS = 12  # of an item in a name, so that names sort as numbers do


class Parts:
    """The parts of `out`, in the folder `OUT.parts`.

    side_results: other files that the parts become at the same time, beside `out`. overwrite: they replace results that
    are there already. end: how many items are done.
    """

    def __init__(self, out: Path, side_results: Sequence[Path] = (), *, overwrite: bool = False) -> None:
        self.out, self._side_results, self._overwrite = out, tuple(side_results), overwrite
        self.folder = out.with_name(f"{out.name}.parts")
        self.end = 0
        self._markers: list[Path] = []

    @property
    def _trash(self) -> Path:
        """Where the folder is moved before it is removed."""
        return self.out.with_name(f".{self.out.name}.done")

    def open(self, manifest: Mapping[str, Any], changes: Changes = option_changes) -> None:
        """Find the parts that are there already, or begin an empty folder, also where no part was complete.

        manifest: all that the results depend on, as JSON. changes: how two manifests differ, in words. Raises UserError
        where a result is complete, the folder is of a job with another manifest or of no job, or a part between others
        is missing.
        """
        path = self.folder / MANIFEST
        shutil.rmtree(self._trash, ignore_errors=True)
        begun = path.exists() and any(self.folder.glob(MARKERS))
        if self._overwrite or (path.exists() and not begun):
            discard(self.folder, (MANIFEST, "[0-9]*-[0-9]*", "whole*", "side*"))
        if self._overwrite or not begun:
            self._begin(path, manifest)
        found = changes(read_json(path), json.loads(json.dumps(manifest)))
        if found:
            raise made_otherwise(self.folder, "the beginning of a result", found)
        for marker in sorted(self.folder.glob(MARKERS)):
            first, end = map(int, marker.stem.split("-"))
            if first != self.end:
                raise UserError(f"{self.folder}: the part of row {self.end + 1} is missing; {begin_anew()}")
            self._markers.append(marker)
            self.end = end

    def _begin(self, path: Path, manifest: Mapping[str, Any]) -> None:
        for result in (self.out, *self._side_results):
            if not self._overwrite:
                require_new_file(result, "out")
        if any(self.folder.glob("*")):
            raise UserError(f"{option('out', self.out)}: {self.folder} is not empty and not of a run; remove it")
        with user_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        write_json(path, manifest)

    def markers(self) -> Iterator[dict[str, Any]]:
        """What the completion markers of all parts hold, in order, read one by one."""
        return map(read_json, self._markers)

    def write(self, items: int, write_results: Callable[[Path], None], marker: Mapping[str, Any]) -> None:
        """Add the part of the next `items` items: a file that `write_results` writes, then the marker, as JSON."""
        end = self.end + items
        path = self.folder / f"{self.end:0{NUMBER_DIGITS}d}-{end:0{NUMBER_DIGITS}d}{self.out.suffix}"
        with user_errors(path):
            write_results(path)
            sync(path)
        write_json(path.with_suffix(".json"), marker)
        self._markers.append(path.with_suffix(".json"))
        self.end = end

    def merge(
        self,
        merge_results: Callable[[Sequence[Path], Path], None],
        write_side_results: Mapping[Path, Callable[[Path], None]],
    ) -> None:
        """Make one file of all parts, and the side results; then remove the parts.

        merge_results: called with the files of the parts, in order, and where to write. write_side_results: by side
        result, what writes it; one that is left out does not exist afterwards.
        """
        whole = self.folder / f"whole{self.out.suffix}"
        with user_errors(self.out):
            merge_results([marker.with_suffix(self.out.suffix) for marker in self._markers], whole)
            sync(whole)
            for result in self._side_results:
                result.unlink(missing_ok=True)
            for result, write in write_side_results.items():
                aside = self.folder / f"side{result.suffix}"
                write(aside)
                aside.replace(result)
            whole.replace(self.out)
            # In one step, so that no half of the folder can be taken for the parts of a run.
            self.folder.rename(self._trash)
            shutil.rmtree(self._trash)
