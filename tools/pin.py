"""Writes `constraints.txt` anew: `python tools/pin.py` pins what is installed in this environment for the extra `dev`.

Pinned is every package that Bothways, its extras for tests and their own requirements ask for on this machine, by name
and version alone; what is installed from a checkout is left out, and so are labels of builds, such as torch's +cpu.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# What `make demo` and `make test` install, so that both behave tomorrow as they do today. Bothways itself takes
# torch 2.11 and newer. Written by `python tools/pin.py`.
"""


def requirements() -> list[Requirement]:
    """What `pip install 'bothways[dev]'` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return list(map(Requirement, [*project["dependencies"], *_of_extras(["dev"], extras)]))


def _of_extras(names: list[str], extras: dict[str, list[str]]) -> Iterator[str]:
    for line in [line for name in names for line in extras[name]]:
        requirement = Requirement(line)
        if requirement.name == "bothways":
            yield from _of_extras(sorted(requirement.extras), extras)
        else:
            yield line


def pinned(wanted: list[Requirement]) -> dict[str, str]:
    """Name → version of all that is needed and installed, found from requirement to requirement.

    Raises PackageNotFoundError where what Bothways itself asks for is missing.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, extra) for requirement in wanted for extra in ("", *requirement.extras)]
    asked = {canonicalize_name(requirement.name) for requirement in wanted}
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if name in asked:
                raise
            continue  # of another platform, though its marker does not say so
        if not _is_checkout(found):
            versions[name] = found.version.partition("+")[0]
        for line in found.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed, more) for more in ("", *needed.extras)]
    return versions


def _is_checkout(found: Distribution) -> bool:
    return '"file:' in (found.read_text("direct_url.json") or "")


def main() -> int:
    wanted = [requirement for requirement in requirements() if not requirement.marker or requirement.marker.evaluate()]
    try:
        lines = [f"{name}=={version}\n" for name, version in sorted(pinned(wanted).items())]
    except PackageNotFoundError as missing:
        print(f"{missing.name} is not installed; `make lint` installs what tests need", file=sys.stderr)
        return 1
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
