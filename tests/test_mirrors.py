"""Outputs behind URLs: the truth is what is behind the URL; markers last; a killed job goes on from its mirror unless
somebody else has changed anything since."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from bothways import mirrors, remote_files
from bothways.errors import UserError
from bothways.mirrors import OutputMirror, output_file, output_folder

URL = "memory://out"


def write(folder: Path, **files: str) -> None:
    """Files by name, in which `__` stands for a slash and `_` before the suffix for a dot."""
    for name, content in files.items():
        path = folder / re.sub(r"_(json|txt|bin)$", r".\1", name).replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def behind(memory: Any, root: str = "/out") -> dict[str, str]:
    names = [name for name in sorted(memory.find(root)) if not name.endswith(f"/{mirrors.WRITER}")]
    return {name.removeprefix(f"{root}/"): memory.cat(name).decode() for name in names}


def another_machine(monkeypatch: pytest.MonkeyPatch, cache: Path, name: str) -> None:
    monkeypatch.setenv("BOTHWAYS_CACHE", str(cache / name))


class Killed(BaseException):
    """What ends a job at once."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ends the job at the n-th request that changes anything behind the URL."""
    left = [10**9]
    original = {name: getattr(mirrors, name) for name in ("upload", "remove")}

    def counted(name: str) -> Any:
        def request(url: str, names: Any) -> None:
            for one in names:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                original[name](url, {one: names[one]} if isinstance(names, dict) else [one])

        return request

    for name in original:
        monkeypatch.setattr(mirrors, name, counted(name))
    return lambda requests: left.__setitem__(0, requests)


def test_a_folder_is_written_and_read_back_elsewhere(
    memory: Any,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with output_folder(URL) as folder:
        write(folder, a_txt="a", model__config_json="{}", model__weights_bin="w")
    expected = {"a.txt": "a", "model/config.json": "{}", "model/weights.bin": "w"}
    assert behind(memory) == expected
    another_machine(monkeypatch, cache, "two")
    with output_folder(URL) as folder:
        assert contents(folder) == expected
        write(folder, a_txt="another")
        (folder / "model" / "weights.bin").unlink()
        write(folder, model__other_bin="o")
    assert behind(memory) == {"a.txt": "another", "model/config.json": "{}", "model/other.bin": "o"}
    another_machine(monkeypatch, cache, ".")
    with output_folder(URL) as folder:
        assert contents(folder) == behind(memory)  # not what this machine had


def test_what_is_the_same_is_not_sent_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, upload = list[str](), mirrors.upload

    def counted(url: str, places: dict[str, Path]) -> None:
        sent.extend(name for name in places if name != mirrors.WRITER)
        upload(url, places)

    monkeypatch.setattr(mirrors, "upload", counted)
    mirror = OutputMirror(URL)
    mirror.pull()
    write(mirror.path, a_txt="a", b_txt="b")
    mirror.push()
    mirror.push()
    write(mirror.path, b_txt="longer")
    mirror.push()
    assert sent == ["a.txt", "b.txt", "b.txt"]
    mirror.pull()
    assert contents(mirror.path) == {"a.txt": "a", "b.txt": "longer"}


@pytest.mark.parametrize("requests", range(9))
def test_killed_anywhere_a_folder_is_old_or_new_or_none(
    requests: int,
    memory: Any,
    cache: Path,
    kill: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = {"config.json": "old", "weights.bin": "old"}
    mirror = OutputMirror(URL)
    mirror.pull()
    write(mirror.path, checkpoints__step_1__state_json="1", checkpoints__step_1__weights_bin="1")
    for path in (mirror.path / "checkpoints").iterdir():
        path.rename(path.with_name("step-1"))
    write(mirror.path, best__config_json="old", best__weights_bin="old", metrics_txt="1")
    mirror.push()
    assert {name.removeprefix("best/"): text for name, text in behind(memory).items() if "best" in name} == old
    write(mirror.path, best__config_json="new!", best__weights_bin="new!", metrics_txt="1 2")
    (mirror.path / "checkpoints" / "step-1").rename(mirror.path / "checkpoints" / "step-2")
    write(mirror.path, **{"checkpoints/step-2/state_json": "2 ", "checkpoints/step-2/weights_bin": "2 "})
    wanted = contents(mirror.path)
    kill(requests)
    try:
        mirror.push()
        killed = False
    except Killed:
        killed = True
    kill(10**9)
    found = behind(memory)
    best = {name.removeprefix("best/"): found[name] for name in found if name.startswith("best/")}
    assert "config.json" not in best or best in (old, {"config.json": "new!", "weights.bin": "new!"})
    steps = {name.split("/")[1] for name in found if name.endswith("state.json")}
    assert steps  # one that a run can go on from
    for step in steps:
        assert found[f"checkpoints/{step}/weights.bin"].strip() == step.removeprefix("step-")
    assert killed == (requests < 8)

    again = OutputMirror(URL)  # on this machine: goes on with all that it has
    again.pull()
    assert contents(again.path) == wanted
    again.push()
    assert behind(memory) == wanted


def test_killed_and_begun_on_another_machine_what_is_behind_the_url_counts(
    memory: Any,
    cache: Path,
    kill: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = OutputMirror(URL)
    first.pull()
    kill(1)
    write(first.path, **{"checkpoints/step-1/weights_bin": "1", "checkpoints/step-1/state_json": "1", "a_txt": "a"})
    with pytest.raises(Killed):
        first.push()
    kill(10**9)
    memory.pipe("/out/checkpoints/step-1/half.bin", b"half")
    another_machine(monkeypatch, cache, "two")
    other = OutputMirror(URL)
    other.pull()
    assert contents(other.path) == {"a.txt": "a"}  # the checkpoint was not written to its end
    write(other.path, a_txt="from two")
    other.push()
    assert behind(memory) == {"a.txt": "from two"}  # nor does it stay
    another_machine(monkeypatch, cache, ".")
    back = OutputMirror(URL)
    back.pull()
    assert contents(back.path) == {"a.txt": "from two"}


def test_two_jobs_on_one_output(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = OutputMirror(URL)
    first.pull()
    write(first.path, a_txt="a")
    first.push()
    another_machine(monkeypatch, cache, "two")
    OutputMirror(URL).pull(to_write=False)  # another machine of the same job only reads
    first.push()
    second = OutputMirror(URL)
    second.pull()
    write(first.path, a_txt="b!")
    with pytest.raises(UserError, match=r"^memory://out: another process has begun to write there; choose another out"):
        first.push()
    assert behind(memory) == {"a.txt": "a"}
    with output_folder(URL) as folder:
        write(folder, a_txt="c")
    assert not memory.exists(f"/out/{mirrors.WRITER}")


def test_what_others_put_there_stays(memory: Any) -> None:
    mirror = OutputMirror(URL)
    mirror.pull()
    write(mirror.path, a_txt="a")
    mirror.push()
    memory.pipe("/out/notes.md", b"mine")
    write(mirror.path, a_txt="b!")
    mirror.push()
    assert behind(memory) == {"a.txt": "b!", "notes.md": "mine"}


def test_a_folder_of_something_else_is_refused_before_it_is_copied(memory: Any) -> None:
    memory.pipe("/out/texts/a.txt", b"a")
    for ours in (True, False):
        with pytest.raises(UserError, match=r"^memory://out holds something else \(texts\); choose another out$"):
            OutputMirror(URL, ["run.json", "model"]).pull(only_ours=ours)
    memory.pipe("/out/run.json", b"{}")
    mirror = OutputMirror(URL, ["run.json", "model"])
    mirror.pull()
    assert contents(mirror.path) == {"run.json": "{}"}
    write(mirror.path, run_json="{ }")
    mirror.push()
    assert behind(memory) == {"run.json": "{ }", "texts/a.txt": "a"}
    with pytest.raises(UserError, match=r"^memory://out holds something else \(texts\)"):
        mirror.pull(only_ours=True)


def test_an_output_that_is_removed_behind_the_url_is_gone(memory: Any) -> None:
    with output_folder(URL) as folder:
        write(folder, manifest_json="{}")
    memory.rm("/out", recursive=True)
    with output_folder(URL) as folder:
        assert contents(folder) == {}


def test_a_job_that_fails_sends_nothing(memory: Any) -> None:
    with contextlib.suppress(Killed), output_folder(URL) as folder:
        write(folder, a_txt="a")
        raise Killed
    assert behind(memory) == {}
    with output_folder(URL) as folder:
        assert contents(folder) == {"a.txt": "a"}  # and goes on here


def test_a_file_and_what_lies_beside_it(memory: Any) -> None:
    url = "memory://results/rows.jsonl"
    with contextlib.suppress(Killed), output_file(url) as place:
        (place.parent / "rows.jsonl.parts").mkdir()
        write(place.parent / "rows.jsonl.parts", one_txt="1")
        raise Killed
    with output_file(url) as place:
        assert (place.parent / "rows.jsonl.parts" / "one.txt").exists()  # goes on
        place.write_text("rows")
        (place.parent / "rows.jsonl.bad.jsonl").write_text("bad")
    assert behind(memory, "/results") == {"rows.jsonl": "rows", "rows.jsonl.bad.jsonl": "bad"}
    with pytest.raises(UserError, match=r"^out: memory://results/rows\.jsonl is there already; "), output_file(url):
        pass
    memory.pipe("/results/rows.jsonl.notes", b"kept")
    with output_file(url, overwrite=True, side_suffixes=(".bad.jsonl",)) as place:
        assert not place.exists()
        place.write_text("new")
    assert behind(memory, "/results") == {"rows.jsonl": "new", "rows.jsonl.notes": "kept"}
    with pytest.raises(UserError, match=r"^memory://results/rows\.jsonl: is a file, not a folder"), output_folder(url):
        pass


def test_local_outputs_are_themselves(tmp_path: Path, cache: Path) -> None:
    for context in (output_folder(tmp_path / "a"), output_file(f"file://{tmp_path}/a")):
        with context as place:
            assert place == tmp_path / "a"
    assert not cache.exists()
    assert remote_files.has_file(tmp_path, "a") is False
