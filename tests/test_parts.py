"""A folder of parts: what counts as done, what is refused, and what is left when all parts are one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bothways.errors import UserError
from bothways.parts import Parts


def opened(out: Path, **manifest: object) -> Parts:
    parts = Parts(out, (out.with_suffix(".log"),))
    parts.open(manifest)
    return parts


def write(parts: Parts, items: int, text: str) -> None:
    parts.write(items, lambda path: path.write_text(text) and None, {"text": text})


def join(paths: Sequence[Path], whole: Path) -> None:
    whole.write_text("".join(path.read_text() for path in paths))


def test_parts_are_found_again_in_order_and_become_one_file(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    parts = opened(out, seed=1)
    write(parts, 9, "a")
    write(parts, 2, "b")
    assert sorted(path.name for path in parts.folder.iterdir()) == [
        "000000000000-000000000009.json",
        "000000000000-000000000009.txt",
        "000000000009-000000000011.json",
        "000000000009-000000000011.txt",
        "manifest.json",
    ]
    again = opened(out, seed=1)
    assert again.end == 11
    assert [marker["text"] for marker in again.markers()] == ["a", "b"]
    again.merge(join, {out.with_suffix(".log"): lambda path: path.write_text("said") and None})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.txt": "ab", "out.log": "said"}


def test_a_part_without_its_marker_does_not_count(tmp_path: Path) -> None:
    parts = opened(tmp_path / "out.txt")
    write(parts, 3, "a")
    (parts.folder / "000000000003-000000000006.txt").write_text("half")
    again = opened(tmp_path / "out.txt")
    assert again.end == 3
    write(again, 3, "b")
    again.merge(join, {})
    assert (tmp_path / "out.txt").read_text() == "ab"
    assert not (tmp_path / "out.log").exists()


def test_what_is_not_ours_to_go_on_with_is_refused(tmp_path: Path) -> None:
    parts = opened(tmp_path / "out.txt", seed=1)
    for text in "abc":
        write(parts, 1, text)
    with pytest.raises(
        UserError, match="beginning of a result that was made otherwise: seed was 1, now 2; overwrite=True"
    ):
        opened(tmp_path / "out.txt", seed=2)
    (parts.folder / "000000000001-000000000002.json").unlink()
    with pytest.raises(UserError, match="the part of row 2 is missing"):
        opened(tmp_path / "out.txt", seed=1)
    (tmp_path / "there.log").write_text("kept")
    with pytest.raises(UserError, match=r"there\.log is there already"):
        opened(tmp_path / "there.txt")
    (tmp_path / "foreign.txt.parts").mkdir()
    (tmp_path / "foreign.txt.parts" / "notes").write_text("kept")
    with pytest.raises(UserError, match="is not empty and not of a run"):
        opened(tmp_path / "foreign.txt")
