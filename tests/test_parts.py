"""A folder of parts: what counts as done, what is refused, and what is left when all parts are one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bothways.errors import UserError
from bothways.parts import Parts, PartShare, commands_for


def opened(out: Path, **job: object) -> Parts:
    parts = Parts(out, (out.with_suffix(".log"),))
    parts.open(job, lambda: {"parts": list("abc"), "command": ["bothways", "make it"]})
    return parts


def write(parts: Parts, number: int) -> None:
    def write_results(path: Path) -> dict[str, str]:
        path.write_text(parts.manifest["parts"][number - 1])
        return {"number": f"part {number}"}

    parts.write(number, write_results)


def join(paths: Sequence[Path], whole: Path) -> None:
    whole.write_text("".join(path.read_text() for path in paths))


def test_parts_are_found_again_whoever_made_them_and_become_one_file_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    parts = opened(out, seed=1)
    write(parts, 3)
    write(parts, 1)
    assert sorted(path.name for path in parts.folder.iterdir()) == [
        "00000001.json", "00000001.txt", "00000003.json", "00000003.txt", "manifest.json",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"out\.txt\.parts: 1 of 3 parts are missing: 2"):
        parts.merge(join, {})
    assert commands_for([2], parts.manifest) == ["bothways 'make it' --parts 2/3"]
    again = opened(out, seed=1)
    assert again.missing() == [2]
    write(again, 2)
    write(again, 1)
    assert [marker["number"] for marker in parts.markers()] == ["part 1", "part 2", "part 3"]
    again.merge(join, {out.with_suffix(".log"): lambda path: path.write_text("said") and None})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.txt": "abc", "out.log": "said"}
    with pytest.raises(UserError, match=r"parts has gone: another process has made \S*out\.txt of its parts"):
        write(parts, 1)


def test_a_part_without_its_marker_does_not_count(tmp_path: Path) -> None:
    parts = opened(tmp_path / "out.txt")
    write(parts, 1)
    (parts.folder / "00000002.txt").write_text("half")
    (parts.folder / ".00000003.json.0123.partial").write_text("{")
    again = opened(tmp_path / "out.txt")
    assert again.missing() == [2, 3]
    write(again, 2)
    write(again, 3)
    again.merge(join, {})
    assert (tmp_path / "out.txt").read_text() == "abc"
    assert not (tmp_path / "out.log").exists()


def test_a_job_that_began_in_the_same_folder_gets_no_part_of_the_one_before(tmp_path: Path) -> None:
    before = opened(tmp_path / "out.txt", seed=1)
    now = opened(tmp_path / "out.txt", seed=2)  # nothing was complete
    with pytest.raises(UserError, match="another process has begun it anew, with other options; choose another out"):
        write(before, 1)
    assert now.missing() == [1, 2, 3]
    again = opened(tmp_path / "out.txt", seed=2)
    (now.folder / "manifest.json").write_text((now.folder / "manifest.json").read_text())  # by one that began with it
    for number in (1, 2, 3):
        write(again, number)
    now.remove()
    with pytest.raises(UserError, match="parts has gone: another process has removed it"):
        write(again, 1)
    again.remove()


def test_what_is_not_ours_to_go_on_with_is_refused(tmp_path: Path) -> None:
    parts = opened(tmp_path / "out.txt", seed=1)
    parts = opened(tmp_path / "out.txt", seed=3)  # nothing was made yet
    write(parts, 1)
    with pytest.raises(
        UserError, match="beginning of a result that was made otherwise: seed was 3, now 2; overwrite=True"
    ):
        opened(tmp_path / "out.txt", seed=2)
    (parts.folder / "manifest.json").write_text('{"seed": 3}')
    with pytest.raises(UserError, match="begun by an earlier version, or not of a job of ours; overwrite=True"):
        opened(tmp_path / "out.txt", seed=3)
    (tmp_path / "there.log").write_text("kept")
    with pytest.raises(UserError, match=r"there\.log is there already"):
        opened(tmp_path / "there.txt")
    (tmp_path / "foreign.txt.parts").mkdir()
    (tmp_path / "foreign.txt.parts" / "notes").write_text("kept")
    with pytest.raises(UserError, match="is not empty and not of a run"):
        opened(tmp_path / "foreign.txt")


def test_shares_have_every_part_once() -> None:
    numbers = range(1, 101)
    for of in (1, 7, 64, 100, 200):
        taken = [number for k in range(1, of + 1) for number in PartShare(k, of).take(numbers)]
        assert sorted(taken) == list(numbers)
    assert PartShare.read("0/64").take(numbers) == []
    assert PartShare.read("12/12") == PartShare(12, 12)
    for wrong in ("13/12", "1/0", "-1/3", "3", "a/b", "1/2/3"):
        with pytest.raises(UserError, match="expected K/N with K from 1 to N"):
            PartShare.read(wrong)
