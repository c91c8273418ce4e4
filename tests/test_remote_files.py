"""URLs: what is one, copies that are complete and never change; texts, tables, stores and models behind them."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import save_file

import bothways as bw
from bothways import remote_files
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint, write_all_but_weights
from bothways.checkpoint.unfinished import UnfinishedRunWarning
from bothways.data.remote_shards import RemoteShards
from bothways.data.stream import RowStream
from bothways.data.tables import read_rows
from bothways.errors import UserError, as_shown
from bothways.files import write_json
from bothways.model.families import head_builder
from bothways.remote_files import local_file, local_folder, local_path, shown_url, url_of, version_of
from bothways.text.sources import resolve_sources
from tests.data.test_prepare import write_corpus
from tests.helpers import Run, tiny_config, tiny_tokenizer


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a/b.txt", "s3://bucket/a/b.txt"),
        (Path("s3://bucket/a/b.txt"), "s3://bucket/a/b.txt"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("memory://a", "memory://a"),
        ("other://host/a", "other://host/a"),
        ("file:///a/b", None),
        ("a/b.txt", None),
        ("C:/a/b.txt", None),
        ("python-docs:json", None),
        ("odd:/name", None),
        (None, None),
    ],
)
def test_what_is_a_url(path: object, url: str | None) -> None:
    assert url_of(path) == url


def test_file_urls_are_paths_of_this_machine(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.txt").write_text("a text\n")
    assert local_path(f"file://{tmp_path}") == local_path(Path(f"file://{tmp_path}")) == tmp_path
    assert local_path("a/b") == Path("a/b")
    assert local_file(f"file://{tmp_path}/a.txt") == tmp_path / "a.txt"
    assert [source.path for source in resolve_sources(f"file://{tmp_path}/*.txt")] == [tmp_path / "a.txt"]
    assert not cache.exists()  # nothing is copied


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:secret@host/a.csv?X-Amz-Signature=secret&x=1", "https://host/a.csv"),
        ("no access to https://ann:secret@host/a and s3://b/c", "no access to https://host/a and s3://b/c"),
        ("s3://bucket/what?.txt", "s3://bucket/what?.txt"),
        ("https://host/a?sig=secret is gone", "https://host/a is gone"),
        ("https://ann:se@cret@host/a", "https://host/a"),
        ("https://host/a?X-Amz-Credential=secret&x=1", "https://host/a"),
        ("https://host/a?x=1&api_key=secret", "https://host/a"),
        ("hf://datasets/a/b@main/c.txt", "hf://datasets/a/b@main/c.txt"),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_a_copy_is_complete_and_another_content_is_another_copy(memory: Any, cache: Path) -> None:
    memory.pipe("/texts/a.txt", b"first")
    first = local_file("memory://texts/a.txt")
    assert first.read_bytes() == b"first"
    assert as_shown(f"{first}: is short") == "memory://texts/a.txt: is short"
    assert str(UserError(f"{first}:3: bad")) == "memory://texts/a.txt:3: bad"
    before = first.stat().st_mtime_ns
    assert local_file(Path("memory://texts/a.txt")) == first
    assert first.stat().st_mtime_ns == before  # not made again
    memory.pipe("/texts/a.txt", b"other")
    other = local_file("memory://texts/a.txt")
    assert (first.read_bytes(), other.read_bytes()) == (b"first", b"other")
    assert version_of(first) != version_of(other)


def test_a_copy_that_was_stopped_is_made_again(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/model/a.bin", b"a" * 100)
    memory.pipe("/model/sub/b.bin", b"b" * 100)
    whole = remote_files.download

    def torn(url: str, places: dict[str, Path]) -> None:
        whole(url, dict(list(places.items())[:1]))
        raise KeyboardInterrupt

    monkeypatch.setattr(remote_files, "download", torn)
    with pytest.raises(KeyboardInterrupt):
        local_folder("memory://model")
    monkeypatch.setattr(remote_files, "download", whole)
    folder = local_folder("memory://model")
    assert {path.name: path.stat().st_size for path in folder.rglob("*.bin")} == {"a.bin": 100, "b.bin": 100}
    assert [path.name for path in cache.glob(".*.partial")] == []


def test_several_at_once_copy_once(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/big.txt", b"x" * 10_000)
    calls, whole = list[str](), remote_files.download
    monkeypatch.setattr(remote_files, "download", lambda url, places: (calls.append(url), whole(url, places)))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(local_file("memory://big.txt"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 6
    assert calls == ["memory://big.txt"]


def test_what_is_not_there_is_one_line(memory: Any) -> None:
    memory.pipe("/texts/a.txt", b"a")
    for path, message in {
        "memory://none.txt": "memory://none.txt: there is no such file or folder",
        "memory://texts": "memory://texts: is a folder, not a file",
        "nowhere://a.txt": "nowhere://: is not known; use s3://, gs://, hf://, file://, or another that fsspec knows",
        "memory://a/../../b": "memory://a/../../b: has '..' in it, which is no name there",
    }.items():
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            local_file(path)
    with pytest.raises(UserError, match=r"^memory://texts/a\.txt: is a file, not a folder$"):
        local_folder("memory://texts/a.txt")
    with pytest.raises(UserError, match=r"^memory://texts/\*\.md: no file matches$"):
        resolve_sources("memory://texts/*.md")


def test_a_package_that_is_missing_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def refuse(scheme: str, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", refuse)
    remote_files._filesystem.cache_clear()
    with pytest.raises(UserError, match=r"^s3://: needs pip install s3fs \(the extra 's3' of Bothways\)$"):
        local_file("s3://bucket/a.txt")
    remote_files._filesystem.cache_clear()


def test_sources_behind_a_url_are_those_of_the_folder(memory: Any, tmp_path: Path) -> None:
    names = {
        "b.txt": b"text b", "a.md": b"text a", "sub/c.jsonl": b'{"text": "c"}\n', "d.pdf": b"x", ".hidden.txt": b"no",
        "vocabulary/tokenizer.json": b"{}", "vocabulary/vocab.txt": b"a", "run/metrics.jsonl": b"{}",
        "run/checkpoints/step-1/state.json": b"{}", "store/manifest.json": b"{}", "store/tokenizer/vocab.txt": b"a",
    }  # fmt: skip
    for name, content in names.items():
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_bytes(content)
        memory.pipe(f"/texts/{name}", content)
    for ending in ("", "/*.txt", "/**/*.jsonl", "/b.txt"):
        here, there = resolve_sources(f"{tmp_path}/texts{ending}"), resolve_sources(f"memory://texts{ending}")
        assert [s.name.removeprefix("memory://") for s in there] == [s.name.removeprefix(f"{tmp_path}/") for s in here]
        assert [(s.size, s.others, s.kind) for s in there] == [(s.size, s.others, s.kind) for s in here]
        for source in there:
            assert source.path is not None
            assert source.path.read_bytes() == names[source.name.removeprefix("memory://texts/")]


def test_tables_behind_a_url(memory: Any) -> None:
    memory.pipe("/rows.csv", b"text,label\nhello,a\nbad")
    url = "memory://rows.csv"
    with pytest.raises(UserError, match=rf"^{url}:3: "):
        read_rows(url)
    memory.pipe("/rows.csv", b"text,label\nhello,a\n")
    assert [(row.source, dict(row.values)) for row in read_rows(url)] == [(f"{url}:2", {"text": "hello", "label": "a"})]
    stream = RowStream(url)
    assert [row.values for row in stream.rows()] == [{"text": "hello", "label": "a"}]  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def local_store(tmp_path_factory: pytest.TempPathFactory) -> bw.TokenStore:
    folder = tmp_path_factory.mktemp("store")
    write_corpus(folder / "c.jsonl", documents=90)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bothways.data.store.CHUNK_TOKENS", 60)
        patch.setattr("bothways.data.store_writer.SHARD_TOKENS", 400)
        return bw.prepare([folder / "c.jsonl"], tiny_tokenizer(), folder / "store", validation=0.1, workers=1)


def test_a_store_behind_a_url_has_the_same_chunks(
    memory: Any,
    cache: Path,
    local_store: bw.TokenStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory.put(str(local_store.directory), "/store", recursive=True)
    remote = bw.TokenStore("memory://store")
    assert repr(remote).startswith("TokenStore(memory://store, ")
    assert remote.tokenizer().fingerprint == local_store.tokenizer_fingerprint
    for end in (1 << 16, 40):  # the second: the footers are longer than what is read at first
        monkeypatch.setattr("bothways.data.remote_shards.END_BYTES", end)
        monkeypatch.setenv("BOTHWAYS_CACHE", str(cache / str(end)))
        for name in ("train", "validation"):
            here, there = local_store.split(name), remote.split(name)  # type: ignore[arg-type]
            assert here.num_chunks == there.num_chunks > 1
            order = [*reversed(range(here.num_chunks))]
            for mine, theirs in zip(here.chunks(order), there.chunks(order), strict=True):
                for field in ("tokens", "sentence_offsets", "document_offsets"):
                    np.testing.assert_array_equal(getattr(mine, field), getattr(theirs, field))


def test_only_the_chunks_that_are_asked_for_are_read_and_once(
    memory: Any,
    local_store: bw.TokenStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory.put(str(local_store.directory), "/store", recursive=True)
    read, ranges = list[int](), remote_files.read_ranges

    def counted(urls: list[str], asked: list[tuple[int, int | None]]) -> list[bytes]:
        read.extend([len(urls)] if urls else [])
        return ranges(urls, asked)

    monkeypatch.setattr("bothways.data.remote_shards.read_ranges", counted)
    shards = sum(shard["documents"] > 0 for shard in local_store.manifest["splits"]["train"])
    assert shards > 1
    split = bw.TokenStore("memory://store").split("train")
    split.chunks([0, 3])
    split.chunks([3, 0, 1])
    bw.TokenStore("memory://store").split("train").chunks([0, 1, 3])  # another process of this machine
    assert read == [shards, 2, 1]


def test_a_shard_that_is_cut_short_is_refused(memory: Any, local_store: bw.TokenStore) -> None:
    memory.put(str(local_store.directory), "/store", recursive=True)
    memory.pipe("/store/train-00000.arrow", b"no arrow")
    with pytest.raises(UserError, match=r"^memory://store/train-00000\.arrow: the shard cannot be read \(not an Arrow"):
        bw.TokenStore("memory://store").split("train")
    memory.pipe("/store/manifest.json", b"{}")
    memory.rm("/store/manifest.json")
    with pytest.raises(UserError, match=r"^memory://store: not a token store: manifest\.json is missing"):
        bw.TokenStore("memory://store")


def test_dictionaries_are_never_in_a_footer_of_ours(tmp_path: Path, memory: Any) -> None:
    """The footer is read by hand: any Arrow file gives the batches that pyarrow gives."""
    schema = pa.schema([("words", pa.list_(pa.int32()))])
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), schema) as writer:
        for size in (1, 0, 500):
            writer.write_batch(
                pa.record_batch([pa.array([[i] * (i % 5) for i in range(size)], schema[0].type)], schema)
            )
    memory.put(str(tmp_path / "a.arrow"), "/a.arrow")
    shards = RemoteShards("memory://", [("a.arrow", "0")], schema)
    with pa.ipc.open_file(str(tmp_path / "a.arrow")) as expected:
        assert shards.batches(range(len(shards))) == [expected.get_batch(i) for i in range(3)]


def test_a_model_behind_a_url(memory: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint(new_model(tiny_config(), head_builder("masked-LM"), seed=1), tiny_tokenizer())
    save_checkpoint(checkpoint, tmp_path / "run" / "model")
    memory.put(str(tmp_path / "run"), "/run", recursive=True)
    memory.pipe("/run/model/model.onnx", b"large")
    memory.pipe("/run/model/pytorch_model.bin", b"pickled")
    expected = bw.load(tmp_path / "run").embed(["a text"])
    for url in ("memory://run", "memory://run/model"):
        model = bw.load(url)
        np.testing.assert_array_equal(model.embed(["a text"]), expected)
    copy = remote_files.local_folder("memory://run/model", ("config.json",))
    assert [path.name for path in copy.iterdir()] == ["config.json"]
    assert bw.Tokenizer.load("memory://run/model").fingerprint == tiny_tokenizer().fingerprint
    with pytest.raises(UserError, match=r"^memory://run/none: there is no such file or folder$"):
        bw.load("memory://run/none")
    memory.pipe("/run/other/a.txt", b"a")
    with pytest.raises(UserError, match=r"^memory://run/other: is no model: config\.json is missing$"):
        bw.load("memory://run/other")


def test_a_run_that_has_not_finished_is_its_last_checkpoint(memory: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint(new_model(tiny_config(), head_builder("masked-LM"), seed=1), tiny_tokenizer())
    run, last = tmp_path / "run", tmp_path / "run" / "checkpoints" / "step-00000002"
    for folder in (run / "start", last, last.with_name("step-00000001")):
        folder.mkdir(parents=True)
    write_all_but_weights(checkpoint, run / "start")
    save_file(dict(checkpoint.model.named_parameters()), last / "model.safetensors")
    for folder in (last, last.with_name("step-00000001")):
        write_json(folder / "state.json", {"step": 2, "data": {"steps": 6}})
    memory.put(str(run), "/run", recursive=True)
    memory.pipe("/run/checkpoints/step-00000003/model.safetensors", b"half")
    with pytest.warns(UnfinishedRunWarning, match=r"memory://run: has not finished \(step 2 of 6\): its last"):
        there = bw.load("memory://run").embed(["a text"])
    with pytest.warns(UnfinishedRunWarning):
        here = bw.load(tmp_path / "run").embed(["a text"])
    np.testing.assert_array_equal(there, here)


def test_verbs_read_urls(memory: Any, bothways: Run) -> None:
    memory.pipe("/lines.txt", b"first line\n\xff\n")
    code, _, err = bothways("embed", "--model", "memory://none", "--in", "memory://lines.txt")
    assert code == 2
    assert err.splitlines()[-1] == "bothways: memory://none: there is no such file or folder"
    assert err.count("BOTHWAYS_CACHE") == 0  # nothing was copied yet
