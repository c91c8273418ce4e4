"""A store made in shares, by other processes, in any order, twice, killed between: the bytes of one made at once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.data import store_parts, store_writer
from bothways.data.prepare import PrepareOptions, begin_store, make_parts, prepare
from bothways.data.store import TokenStore
from bothways.data.store_parts import StoreParts, open_store_parts
from bothways.errors import UserError
from bothways.text.sources import resolve_sources
from bothways.verbs.parts_arguments import part_command
from tests.data.test_prepare import contents, write_corpus
from tests.helpers import Run, tiny_tokenizer

SENTENCES = "the dog runs. the cat sleeps.\nthe bird sings.\n\n"


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of every kind that is cut, and some that are not; a part has less than many of them."""
    monkeypatch.setattr(store_parts, "PART_BYTES", 4_000)
    monkeypatch.setattr(store_writer, "SHARD_TOKENS", 6_000)
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_corpus(folder / "a.jsonl", documents=60)
    (folder / "b.csv").write_text("n;text\n" + "".join(f'{n};"the dog runs.\nthe cat sleeps."\n' for n in range(300)))
    pq.write_table(pa.table({"text": ["the cat sleeps. " * 8] * 120}), folder / "c.parquet", row_group_size=50)
    (folder / "d.txt").write_text(SENTENCES * 200)
    for number in range(20):
        (folder / f"e{number:02d}.md").write_text(f"# the dog {number}\n\nthe cat sleeps.\n")
    (folder / "empty.txt").write_text("")
    (folder / "notes.docx").write_text("")
    return folder


def test_shares_in_any_order_and_twice_give_one_store(corpus: Path, tmp_path: Path, bothways: Run) -> None:
    tiny_tokenizer().save(_made(tmp_path / "vocabulary"))
    given = ["prepare", corpus, "--tokenizer", tmp_path / "vocabulary", "--workers", 1, "--validation", "0.1"]
    assert bothways(*given, "--out", tmp_path / "whole")[0] == 0
    whole = contents(tmp_path / "whole")
    assert len(TokenStore(tmp_path / "whole").manifest["splits"]["train"]) > 2
    for of in (1, 7, 64):
        out = tmp_path / f"of{of}"
        order = list(range(of + 1)) * 2
        random.Random(of).shuffle(order)
        for share in order[: len(order) // 2]:
            code, _, err = bothways(*given, "--out", out, "--parts", f"{share}/{of}")
            assert code == 0, err
        begun = StoreParts.load(out)
        if missing := begun.parts.missing():
            code, said, err = bothways("join", out)
            assert code == 2
            assert f"bothways prepare {corpus} --tokenizer" in said
            assert f"--parts {missing[0]}/{begun.parts.count}" in said
            assert f"{len(missing)} of {begun.parts.count} parts are missing: {missing[0]}" in err
        make = open_store_parts(out)  # as a process elsewhere does, which has the folder and the sources alone
        for number in random.Random(of).sample(range(1, begun.parts.count + 1), 5):
            make(number)
        for share in order[len(order) // 2 :]:
            assert bothways(*given, "--out", out, "--parts", f"{share}/{of}")[0] == 0
        if begun.parts.missing():  # one machine ends what shares have begun
            assert bothways(*given, "--out", out)[0] == 0
        else:
            assert bothways("join", f"{out}.parts/")[0] == 0  # as a shell completes it
        assert contents(out) == whole
        assert not begun.parts.folder.exists()
    assert "done already" in bothways(*given, "--out", tmp_path / "of7", "--parts", "3/7")[1]


def test_what_is_wrong_with_parts_is_said(corpus: Path, tmp_path: Path, bothways: Run) -> None:
    tiny_tokenizer().save(_made(tmp_path / "vocabulary"))
    given = ["prepare", corpus, "--tokenizer", tmp_path / "vocabulary", "--workers", 1, "--out", tmp_path / "store"]

    def complaint(*arguments: Any) -> str:
        code, _, err = bothways(*arguments)
        assert code == 2
        return err

    assert "--parts 4/3: expected K/N with K from 1 to N" in complaint(*given, "--parts", "4/3")
    assert "choose one" in complaint(*given, "--parts", "1/3", "--on", "ray")
    assert "--on spark: expected ray or ray://HOST:PORT" in complaint(*given, "--on", "spark")
    assert "give --parts 0/3 with it first" in complaint(*given, "--parts", "1/3", "--overwrite")
    assert "store.parts: no such folder of parts" in complaint("join", tmp_path / "store")
    assert bothways(*given, "--parts", "1/3")[0] == 0
    assert "validation was 0.02, now 0.5; --overwrite begins" in complaint(
        *given, "--parts", "2/3", "--validation", 0.5
    )
    assert "its preparation has not finished" in complaint("pretrain", tmp_path / "store", "--steps", 1, "--out", "run")
    (corpus / "d.txt").write_text(SENTENCES * 201)
    make, missing = open_store_parts(tmp_path / "store"), StoreParts.load(tmp_path / "store").parts.missing()
    with pytest.raises(UserError, match=r"d\.txt: has changed since the parts were cut: \S+ bytes then, now"):
        list(map(make, missing))


def test_a_store_that_died_at_its_very_end_is_tidied_up(corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    class Killed(BaseException):
        """Stands for a kill: nothing catches it."""

    def die(self: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("bothways.parts.Parts.remove", die)
        with pytest.raises(Killed):
            prepare(corpus, tiny_tokenizer(), tmp_path / "store", workers=1)
    assert (tmp_path / "store.parts").exists()
    before = contents(tmp_path / "store")
    prepare(corpus, tiny_tokenizer(), tmp_path / "store", workers=1)
    assert not (tmp_path / "store.parts").exists()
    assert contents(tmp_path / "store") == before


def test_a_store_is_not_lost_where_two_join_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "a.jsonl", documents=20)
    out, sync_tree = tmp_path / "store", store_writer.sync_tree
    tokenizer = tiny_tokenizer()
    resolved = resolve_sources(tmp_path / "a.jsonl")
    begun = begin_store(StoreParts(out), resolved, tokenizer, PrepareOptions())
    assert isinstance(begun, StoreParts)
    make_parts(begun, None, 1, quiet=True)

    def other_is_faster(directory: Path) -> None:
        sync_tree(directory)
        monkeypatch.setattr(store_writer, "sync_tree", sync_tree)
        StoreParts.load(out).join()

    monkeypatch.setattr(store_writer, "sync_tree", other_is_faster)
    with pytest.raises(UserError):
        begun.join()
    assert TokenStore(out).manifest["documents"] == 20
    assert contents(out) == contents(prepare(tmp_path / "a.jsonl", tokenizer, tmp_path / "alone").directory)


def test_a_vocabulary_that_is_not_the_jobs_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "a.jsonl", documents=5)
    resolved = resolve_sources([str(tmp_path / "a.jsonl")])
    begin_store(StoreParts(tmp_path / "out"), resolved, tiny_tokenizer(), PrepareOptions())
    vocabulary = tmp_path / "out.parts" / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace(r"\"dog\"", r"\"god\""))
    with pytest.raises(UserError, match="is not the vocabulary that the parts were begun with; overwrite=True begins"):
        open_store_parts(tmp_path / "out")(1)


def test_the_command_that_makes_a_part_is_kept_without_secrets() -> None:
    words = ["https://ann:secret@host/a.jsonl", "--on", "ray", "--parts=3/4", "--out", "store", "--overwrite"]
    assert part_command("prepare", words) == ["bothways", "prepare", "https://host/a.jsonl", "--out", "store"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
