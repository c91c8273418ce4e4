"""A large job as a folder of numbered parts, which become one result in the end; a killed job goes on where it was.

`OUT.parts/manifest.json` is written first: what the results depend on (`job`), how the input is cut (`parts`), and the
command. Part NUMBER, from 1, is two files: `NUMBER.SUFFIX`, its results, and then its completion marker, `NUMBER.json`.
A part exists once its marker exists. What is in either file is for the job to say, and follows from the manifest alone.
So any process may make any part, in any order, twice as well: files are written aside under a name of their own, and
the last of two writers puts the same bytes in place.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.errors import UserError, option, options_as_flags
from bothways.files import PARTIAL, read_json, to_json, user_errors, written_aside
from bothways.outputs import begin_anew, discard, made_otherwise, option_changes, require_new_file

Changes = Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"  # the vocabulary that the parts of a store are cut with
MARKER = re.compile(r"(\d+)\.json")
NUMBER_DIGITS = 8  # of a part in a name, so that names sort as numbers do
MAX_SHOWN = 10  # numbers of missing parts
OURS = (MANIFEST, "[0-9]*.*", "whole*", "side*", TOKENIZER, PARTIAL)  # all that a folder of parts may hold


@dataclass(frozen=True)
class PartShare:
    """Which parts a process makes: those whose number is `number` modulo `of`, `number` from 1; 0 is none of them,
    which writes the manifest alone."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> PartShare:
        """The share that `3/64` is. Raises UserError for anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or int(found[2]) < 1 or int(found[1]) > int(found[2]):
            expected = "K/N with K from 1 to N, 3/64 say, or 0/N to write the manifest alone"
            raise UserError(f"{option('parts', text)}: expected {expected}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def flag(self) -> str:
        """The words of the command line."""
        with options_as_flags():
            return option("parts", str(self))

    def take(self, numbers: Iterable[int]) -> list[int]:
        """Those of the parts that are of this share."""
        return [number for number in numbers if self.number and number % self.of == self.number % self.of]


class Parts:
    """The parts of `out`, in the folder `OUT.parts`.

    suffix: of the parts' results, by default that of `out`. side_results: other files that the parts become at the same
    time, beside `out`. overwrite: they replace results that are there already.
    """

    def __init__(
        self, out: Path, side_results: Sequence[Path] = (), *, suffix: str | None = None, overwrite: bool = False
    ) -> None:
        self.out, self._side_results, self._overwrite = out, tuple(side_results), overwrite
        self._suffix = out.suffix if suffix is None else suffix
        self.folder = parts_folder(out)
        self.manifest: dict[str, Any] = {}
        self._manifest_state: tuple[Any, ...] = ()  # of the file that was read

    @property
    def _trash(self) -> Path:
        """Where the folder is moved before it is removed."""
        return self.out.with_name(f".{self.out.name}.done")

    @property
    def count(self) -> int:
        """How many parts there will be."""
        return len(self.manifest["parts"])

    def open(
        self, job: Mapping[str, Any], cut: Callable[[], Mapping[str, Any]], changes: Changes = option_changes
    ) -> None:
        """Find the manifest that is there already, or write one. A job without a complete part begins anew where it was
        another.

        job: all that the results depend on, as JSON. cut: what else the manifest holds, `parts` with an entry for each,
        as JSON. changes: how two jobs differ, in words. Raises UserError where a result is complete, or the folder is
        of another job or of none.
        """
        shutil.rmtree(self._trash, ignore_errors=True)
        if self._overwrite:
            self._discard()
        elif self.has_manifest():
            self.load()
            found = changes(self.manifest["job"], json.loads(json.dumps(job)))
            if not found:
                return
            if self.done():
                raise made_otherwise(self.folder, "the beginning of a result", found)
            self._discard()
        manifest = {"job": job, **cut()}
        if not self._overwrite and self.has_manifest():  # another process has begun it meanwhile
            return self.open(job, lambda: manifest, changes)
        self._begin(manifest)

    def load(self) -> None:
        """Read the manifest. Raises UserError where there is none, or one of an earlier version."""
        state = self._state_of_manifest()
        self._pull()
        self.manifest, self._manifest_state = read_json(self.folder / MANIFEST), state
        if not {"job", "parts"} <= self.manifest.keys():
            raise UserError(f"{self.folder}: begun by an earlier version, or not of a job of ours; {begin_anew()}")

    def _begin(self, manifest: Mapping[str, Any]) -> None:
        if not self._overwrite:
            self._require_free()
        stray = [name for name in self._names() if not name.startswith(".") and not self._is_ours_alone(name)]
        if stray:
            held = f"is not empty and not of a run ({', '.join(sorted(stray)[:3])})"
            raise UserError(f"{option('out', self.out)}: {self.folder} {held}; remove {self.folder}")
        with user_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            with written_aside(self.folder / MANIFEST) as aside:
                aside.write_text(json.dumps(manifest, ensure_ascii=False) + "\n", encoding="utf-8")
        self._push(MANIFEST)
        self.load()
        self._require_job(json.loads(json.dumps(dict(manifest))), self.manifest)

    def _require_free(self) -> None:
        """Raises UserError where a result is there already."""
        for result in (self.out, *self._side_results):
            if not result.is_dir():  # what is in a folder is for the job to say
                require_new_file(result, "out")

    def keep_tokenizer(self, text: str) -> None:
        """Put the vocabulary beside the manifest, where it is not there yet. text: JSON."""
        path = self.folder / TOKENIZER
        if not path.exists():
            with user_errors(path), written_aside(path) as aside:
                aside.write_text(text, encoding="utf-8")
            self._push(TOKENIZER)

    def exists(self) -> bool:
        """Whether there is a folder of parts."""
        return self.folder.is_dir()

    def has_manifest(self) -> bool:
        """Whether the parts of a job have been begun."""
        return (self.folder / MANIFEST).exists()

    def _is_made(self) -> bool:
        """Whether the result is there."""
        return self.out.exists()

    def _names(self) -> list[str]:
        """Of all files in the folder."""
        return os.listdir(self.folder) if self.folder.is_dir() else []

    def _is_ours_alone(self, name: str) -> bool:
        """Whether a file may be there where no job is."""
        return name in (MANIFEST, TOKENIZER)

    def _pull(self) -> None:
        """Bring the manifest and the vocabulary here, where the folder is elsewhere."""

    def _push(self, name: str) -> None:
        """Bring a file there, where the folder is elsewhere."""

    def _discard(self) -> None:
        """Remove the parts of another job. Raises UserError where the folder holds something else."""
        discard(self.folder, OURS)

    def _state_of_manifest(self) -> tuple[Any, ...]:
        """What tells the manifest's file from another; nothing where there is none."""
        try:
            stat = (self.folder / MANIFEST).stat()
        except OSError:
            return ()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _require_same_job(self) -> None:
        """Raises UserError where the folder is of another job by now: one that began before any part was complete."""
        state = self._state_of_manifest()
        if state != self._manifest_state:  # a manifest of many parts is not read for each of them
            self._pull()
            self._require_job(self.manifest, read_json(self.folder / MANIFEST))
            self._manifest_state = state

    def _require_job(self, ours: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        if any(there.get(name) != ours[name] for name in ("job", "parts")):
            raise UserError(
                f"{self.folder}: another process has begun it anew, with other options; choose another {option('out')}"
            )

    def done(self) -> set[int]:
        """The numbers of the parts that are complete now, whoever made them."""
        return {int(found[1]) for name in self._names() if (found := MARKER.fullmatch(name))}

    def missing(self, share: PartShare | None = None) -> list[int]:
        """The numbers of the parts that are not complete, in order; of a share or of all."""
        done = self.done()
        numbers = [number for number in range(1, self.count + 1) if number not in done]
        return share.take(numbers) if share else numbers

    def marker(self, number: int) -> dict[str, Any]:
        """What the completion marker of a part holds."""
        return read_json(self._path(number).with_suffix(".json"))

    def markers(self) -> Iterator[dict[str, Any]]:
        """What the completion markers hold, in the order of the parts, of those that are complete, read one by one."""
        return map(self.marker, sorted(self.done()))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:0{NUMBER_DIGITS}d}{self._suffix}"

    def write(self, number: int, write_results: Callable[[Path], Mapping[str, Any]]) -> None:
        """Add a part: a file that `write_results` writes, then its completion marker, what that returns, as JSON.

        Raises UserError where it cannot be written, and where the folder has gone or is of another job by now."""
        path = self._path(number)
        with self._job_goes_on(), user_errors(path):
            with written_aside(path) as aside:
                marker = write_results(aside)
                self._require_same_job()
            self._push(path.name)
            complete = path.with_suffix(".json")
            with written_aside(complete) as aside:
                aside.write_text(to_json(marker, ensure_ascii=False) + "\n", encoding="utf-8")
                self._require_same_job()  # an upload takes minutes
            self._push(complete.name)

    @contextmanager
    def _job_goes_on(self) -> Iterator[None]:
        """Say so where the folder has gone meanwhile, because another process ended the job."""
        try:
            yield
        except UserError:
            if self.exists():
                raise
            made = f"another process has made {self.out} of its parts"
            removed = "another process has removed it; give the command again"
            raise UserError(f"{self.folder} has gone: {made if self._is_made() else removed}") from None

    def results(self) -> list[Path]:
        """The files of all parts, in order. Raises UserError where one is not complete yet."""
        if missing := self.missing():
            raise UserError(f"{self.folder}: {missing_in_words(missing, self.count)}")
        return [self._path(number) for number in range(1, self.count + 1)]

    def merge(
        self,
        merge_results: Callable[[Sequence[Path], Path], None],
        write_side_results: Mapping[Path, Callable[[Path], None]],
    ) -> None:
        """Make one file of all parts, and the side results; then remove the parts.

        merge_results: called with the files of the parts, in order, and where to write. write_side_results: by side
        result, what writes it; one that is left out does not exist afterwards.
        """
        results = self.results()
        with self._job_goes_on(), user_errors(self.out):
            with written_aside(self.folder / f"whole{self._suffix}") as whole:
                merge_results(results, whole)
            for result in self._side_results:
                result.unlink(missing_ok=True)
            for result, write in write_side_results.items():
                side = self.folder / f"side{result.suffix}"
                with written_aside(side) as aside:
                    write(aside)
                side.replace(result)
            (self.folder / f"whole{self._suffix}").replace(self.out)
        self.finish()

    def finish(self) -> None:
        """The result is made: the parts have served."""
        self.remove()

    def remove(self) -> None:
        """Remove the folder, in one step for whoever looks on, so that no half of it is taken for a job's; another
        process may do so at the same time."""
        shutil.rmtree(self._trash, ignore_errors=True)
        with user_errors(self.folder), suppress(FileNotFoundError):
            self.folder.rename(self._trash)
        shutil.rmtree(self._trash, ignore_errors=True)


def parts_folder(out: Path) -> Path:
    """The folder of the parts of a result."""
    return out.with_name(f"{out.name}.parts")


def missing_in_words(missing: Sequence[int], count: int) -> str:
    """`2 of 64 parts are missing: 5, 9`."""
    shown = ", ".join(map(str, missing[:MAX_SHOWN])) + (", …" if len(missing) > MAX_SHOWN else "")
    return f"{len(missing):,} of {count:,} {'parts are' if count > 1 else 'part is'} missing: {shown}"


def commands_for(missing: Sequence[int], manifest: Mapping[str, Any]) -> list[str]:
    """The commands that make the first of the missing parts, one by one, as the shell reads them."""
    shown = [PartShare(number, len(manifest["parts"])) for number in missing[:MAX_SHOWN]]
    return [shlex.join([*manifest["command"], *shlex.split(share.flag)]) for share in shown if manifest["command"]]
