"""Parts behind a URL: whoever goes on with them, what comes too late, and what is torn."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bothways import shared_parts
from bothways.data import store_parts
from bothways.data.prepare import prepare
from bothways.errors import UserError
from bothways.inference import bulk
from bothways.mirrors import new_output_file, output_as_it_is, output_file, output_folder
from bothways.parts import Parts
from bothways.shared_parts import SharedParts
from bothways.text.extents import ExtentSize
from bothways.text.tokenizer import Tokenizer
from tests.data.test_prepare import contents, write_corpus
from tests.helpers import WORDS, Run
from tests.test_parts import join, write

URL = "memory://b/out.txt"


def opened(tmp_path: Path, **job: object) -> SharedParts:
    parts = SharedParts(URL, tmp_path / "out.txt")
    parts.open(job, lambda: {"parts": list("abc"), "command": ["bothways", "make it"]})
    return parts


def names(memory: Any) -> list[str]:
    return [name.removeprefix("/b/") for name in memory.find("/b")]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the parts that are written, in order."""
    numbers: list[int] = []
    whole = Parts.write

    def counted(self: Parts, number: int, write_results: Any) -> None:
        numbers.append(number)
        whole(self, number, write_results)

    monkeypatch.setattr(Parts, "write", counted)
    return numbers


def test_a_store_whose_shares_were_begun_goes_on_without_them(
    memory: Any, cache: Path, tmp_path: Path, pretrained: Path, bothways: Run, made: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(store_parts, "PART_BYTES", 6_000)
    write_corpus(tmp_path / "c.jsonl", documents=60)
    given = ["prepare", tmp_path / "c.jsonl", "--tokenizer", pretrained, "--workers", 1]
    assert bothways(*given, "--out", tmp_path / "store")[0] == 0
    count = len(made)
    assert count > 2
    for name, whole in (
        ("plain", lambda url: bothways(*given, "--out", url)),
        ("joined", lambda url: (bothways(*given, "--out", url, "--parts", "2/2"), bothways("join", url))[1]),
        ("python", lambda url: (0, str(prepare(tmp_path / "c.jsonl", Tokenizer.load(pretrained), url, workers=1)), "")),
    ):
        made.clear()
        url = f"memory://b/{name}"
        assert bothways(*given, "--out", url, "--parts", "1/2")[0] == 0
        code, out, err = whole(url)
        assert code == 0, err
        assert sorted(made) == list(range(1, count + 1))
        assert url in out
        assert str(cache) not in out
        assert not memory.find(f"/b/{name}.parts")
        memory.get(f"/b/{name}", str(tmp_path / name), recursive=True)
        assert contents(tmp_path / name) == contents(tmp_path / "store")


def test_a_table_whose_shares_were_begun_goes_on_without_them(
    memory: Any, tmp_path: Path, pretrained: Path, bothways: Run, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "part_size", lambda table_bytes: ExtentSize(1, 10))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": word}) + "\n" for word in WORDS))
    embed = ["embed", pretrained, "--in", tmp_path / "t.jsonl", "--out", "memory://b/t.jsonl"]
    place = new_output_file("memory://b/t.jsonl")
    place.write_text("joined by another process of this machine")
    assert bothways(*embed, "--parts", "1/2")[0] == 0
    assert place.exists()
    share = list(made)
    assert share
    code, _, err = bothways(*embed)
    assert code == 0, err
    assert len(made) == len(set(made)) > len(share)
    assert names(memory) == ["t.jsonl"]
    assert memory.cat("/b/t.jsonl").count(b"\n") == len(WORDS)


def test_a_share_leaves_what_is_joined_on_its_machine(memory: Any) -> None:
    with output_folder("memory://b/store") as folder:
        (folder / "train-00000.arrow").write_text("half")
        assert not list(output_as_it_is("memory://b/store").iterdir())
        assert (folder / "train-00000.arrow").exists()
        (folder / "manifest.json").write_text("{}")
    assert {path.name for path in output_as_it_is("memory://b/store").iterdir()} == {
        "manifest.json", "train-00000.arrow",
    }  # fmt: skip
    with output_file(URL) as place:
        place.write_text("merged")
        assert new_output_file(URL).read_text() == "merged"


def during_upload(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Have something happen after a part was found to be of its job, when its first file is uploaded."""
    whole, waiting = shared_parts.upload, [happens]

    def slow(url: str, places: dict[str, Path]) -> None:
        if waiting and any(name.startswith("0") for name in places):
            waiting.pop()()
        whole(url, places)

    monkeypatch.setattr(shared_parts, "upload", slow)


def test_a_part_that_is_uploaded_when_another_job_has_begun_is_none_of_its_parts(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, begun = opened(tmp_path, seed=1), []
    during_upload(monkeypatch, lambda: begun.append(opened(tmp_path, seed=2)))
    with pytest.raises(UserError, match="another process has begun it anew, with other options"):
        write(before, 1)
    [now] = begun
    assert now.missing() == [1, 2, 3]
    for number in (3, 2, 1):
        write(now, number)
    assert [marker["number"] for marker in now.markers()] == ["part 1", "part 2", "part 3"]
    now.merge(join, {})
    assert (tmp_path / "out.txt").read_text() == "abc"
    now.remove()
    assert names(memory) == []


def test_a_part_that_is_uploaded_when_the_job_has_ended_is_in_nobodys_way(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(tmp_path, seed=1)
    during_upload(monkeypatch, before.remove)
    with pytest.raises(UserError, match="has gone: another process has removed it"):
        write(before, 1)
    assert len(names(memory)) == 1
    for seed in (1, 2):  # the same job, too: the marker did not come
        again = opened(tmp_path, seed=seed)
        assert again.missing() == [1, 2, 3]
        again.remove()
        assert names(memory) == []


def test_a_marker_without_its_part_does_not_count(memory: Any, tmp_path: Path) -> None:
    parts = opened(tmp_path)
    write(parts, 1)
    write(parts, 2)
    [lost] = [name for name in names(memory) if re.search(r"/00000001.*\.txt", name)]
    memory.rm_file(f"/b/{lost}")
    assert opened(tmp_path).missing() == [1, 3]


def test_what_is_torn_or_foreign_is_named(memory: Any, tmp_path: Path) -> None:
    parts = opened(tmp_path)
    write(parts, 1)
    [marker] = [name for name in names(memory) if re.search(r"/00000001.*\.json", name)]
    for torn in (b'{"rows": 1', b"", b"\xff", b"[]"):
        memory.pipe(f"/b/{marker}", torn)
        with pytest.raises(UserError, match=rf"^memory://b/{marker}: cannot be read as .*; remove it, and the same"):
            list(parts.markers())
    parts.remove()
    memory.pipe("/b/out.txt.parts/notes", b"kept")
    url = r"memory://b/out\.txt\.parts"
    with pytest.raises(UserError, match=rf"{url} is not empty and not of a run \(notes\); remove {url}$"):
        opened(tmp_path)
