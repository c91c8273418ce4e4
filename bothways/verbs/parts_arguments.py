"""Who makes the parts of a large job: processes here, a share of them, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bothways.errors import UserError, as_shown
from bothways.parts import Parts, PartShare
from bothways.remote_files import shown_url, url_of
from bothways.shared_parts import begun_behind
from bothways.verbs.printing import say

_NOT_OF_A_PART = ("--parts", "--on")  # with their values, and
_SWITCHES_NOT_OF_A_PART = ("--overwrite",)


@dataclass(frozen=True, kw_only=True)
class PartsArguments:
    """on: who makes the parts of the job: by default this machine; ray, the Ray cluster of this machine, which is
    started if there is none; or ray://HOST:PORT. parts: make every part whose number is K modulo N, 3/64 say, and stop;
    0/N cuts the input and makes none; when all are there bothways join makes the result."""

    on: str | None = None
    parts: str | None = None

    def refuse_parts(self) -> None:
        """Raises UserError where parts are asked for and nothing is made in parts."""
        if self.on is not None or self.parts is not None:
            raise UserError("--on and --parts: are of a table after --in, with a .parquet, .jsonl or .csv after --out")

    def parts_url(self, out: str) -> str | None:
        """The URL of a result whose parts are behind it as well, as machines make them that share nothing else: they
        are asked for, or shares of them were. To be asked once, as it looks at what is there."""
        return url_of(out) if self.on is not None or self.parts is not None else begun_behind(out)

    def share(self, overwrite: bool) -> PartShare | None:
        """The share of the parts that is asked for, None for all. Raises UserError for other values, and for options
        that do not go together. overwrite: whether what is there is to be replaced."""
        if self.on is not None:
            from bothways.cluster.connection import check_address

            check_address(self.on)
        if self.parts is None:
            return None
        if self.on is not None:
            raise UserError(f"--on {self.on} makes all parts, --parts {self.parts} a share of them; choose one")
        share = PartShare.read(self.parts)
        if overwrite and share.number:
            first = f"give --parts 0/{share.of} with it first"
            raise UserError(f"--overwrite with --parts {share} would remove the other shares; {first}")
        return share


def part_command(verb: str, arguments: Sequence[str]) -> list[str]:
    """The words of the command without those that say who makes which parts, and without secrets, as it is kept."""
    words, skip = ["bothways", verb], False
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if not skip and name not in (*_NOT_OF_A_PART, *_SWITCHES_NOT_OF_A_PART):
            words.append(shown_url(word))
        skip = not skip and word.replace("_", "-") in _NOT_OF_A_PART
    return words


def say_share(parts: Parts, share: PartShare, made: int) -> None:
    """Tell what a share's command has done, and what there is to do."""
    there = len(parts.done())
    folder, out = as_shown(parts.folder), as_shown(parts.out)
    print(f"{folder}: made {made:,} parts of the share {share}; {there:,} of {parts.count:,} parts are there")
    print(f"next: bothways join {out}" if there == parts.count else f"when all are: bothways join {out}")


def make_on_cluster(
    on: str,
    parts: Parts,
    open_job: Callable[[], Callable[[int], int]],
    per: Literal["core", "device"],
    on_made: Callable[[int, int], None],
) -> None:
    """Make the missing parts on a cluster, as `cluster/ray_parts.py` does."""
    from bothways.cluster.ray_parts import make_on_ray

    make_on_ray(on, open_job, parts.missing(), per, on_made, say)


def absolute(path: str | None) -> str | None:
    """A path as other processes find it; a name that is no path here as it is."""
    return str(Path(path).absolute()) if path is not None and Path(path).exists() else path
