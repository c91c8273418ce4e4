"""The token store: what goes in comes out, the same bytes whatever the workers, killed or not."""

from __future__ import annotations

import itertools
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pytest

from bothways.data import documents as preparation
from bothways.data import store_parts, store_writer
from bothways.data.lengths import few_held_out
from bothways.data.prepare import PrepareOptions, prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.text.corpus import CorpusOptions, Document
from bothways.text.sentences import SENTENCE_LANGUAGES, split_sentences
from bothways.text.tokenizer import Tokenizer
from tests.helpers import WORDS, tiny_tokenizer


def write_corpus(path: Path, documents: int = 120, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    written = []
    with path.open("w") as file:
        for _ in range(documents):
            sentences = [" ".join(rng.choice(WORDS, rng.integers(3, 20))) + "." for _ in range(rng.integers(1, 12))]
            file.write(json.dumps({"text": "\n".join(sentences)}) + "\n")
            written.append(sentences)
    return written


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_documents_come_out_as_they_went_in(tmp_path: Path) -> None:
    written = write_corpus(tmp_path / "c.jsonl")
    tokenizer = tiny_tokenizer()
    store = prepare([str(tmp_path / "c.jsonl")], tokenizer, tmp_path / "store", PrepareOptions(validation=0.1))
    split_documents = {"train": [], "validation": []}
    for name, documents in split_documents.items():
        split = store.split(name)
        for index in range(split.num_chunks):
            chunk = split.chunk(index)
            for first, last in zip(chunk.document_offsets[:-1], chunk.document_offsets[1:], strict=True):
                offsets = chunk.sentence_offsets[first : last + 1]
                documents.append([tokenizer.decode(chunk.tokens[a:b].tolist()) for a, b in itertools.pairwise(offsets)])
        assert split.documents == len(documents)
    held_out = written[9::10]
    assert split_documents["validation"] == held_out
    assert split_documents["train"] == [document for number, document in enumerate(written) if number % 10 != 9]
    assert store.manifest["documents"] == 120
    assert store.manifest["unknown_tokens"] == 0


def test_other_tools_open_a_shard(tmp_path: Path) -> None:
    written = write_corpus(tmp_path / "c.jsonl")
    prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store", PrepareOptions(validation=0))
    frame = polars.read_ipc(tmp_path / "store" / "train-00000.arrow")
    assert frame.height == len(written)
    assert frame["sentences"].list.len().to_list() == [len(document) for document in written]
    assert frame.schema["sentences"] == polars.List(polars.List(polars.UInt16))
    assert pa.ipc.open_file(tmp_path / "store" / "train-00000.arrow").read_all().num_rows == len(written)


def test_bytes_do_not_depend_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=300)
    monkeypatch.setattr(preparation, "BATCH_CHARACTERS", 20_000)
    monkeypatch.setattr(store_writer, "SHARD_TOKENS", 5_000)
    monkeypatch.setattr(store_parts, "PART_BYTES", 8_000)
    for workers in (1, 2, 3):
        prepare(
            [str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / f"store{workers}", PrepareOptions(workers=workers)
        )
    assert len(list((tmp_path / "store1").glob("train-*.arrow"))) > 2
    assert contents(tmp_path / "store1") == contents(tmp_path / "store2") == contents(tmp_path / "store3")
    monkeypatch.setattr(store_parts, "PART_BYTES", 1 << 30)
    prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "in-one-part")
    assert contents(tmp_path / "store1") == contents(tmp_path / "in-one-part")


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_killed_preparation_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=300)
    monkeypatch.setattr(preparation, "BATCH_CHARACTERS", 5_000)
    monkeypatch.setattr(store_writer, "SHARD_TOKENS", 5_000)
    monkeypatch.setattr(store_parts, "PART_BYTES", 8_000)
    source, tokenizer = [str(tmp_path / "c.jsonl")], tiny_tokenizer()
    whole = prepare(source, tokenizer, tmp_path / "whole", PrepareOptions(workers=1))

    def stop_late(report: Any, tokens: int) -> None:
        if tokens > 14_000:
            raise Killed

    with pytest.raises(Killed):
        prepare(source, tokenizer, tmp_path / "parts", PrepareOptions(workers=1), on_progress=stop_late)
    with pytest.raises(UserError, match="has not finished"):
        TokenStore(tmp_path / "parts")
    with pytest.raises(UserError, match=r"made otherwise: validation was 0\.02, now 0\.5; overwrite=True"):
        prepare(source, tokenizer, tmp_path / "parts", PrepareOptions(validation=0.5))
    redone = []
    monkeypatch.setattr(
        preparation,
        "_prepare_batch",
        lambda t, d, g, original=preparation._prepare_batch: redone.extend(d) or original(t, d, g),
    )
    prepare(source, tokenizer, tmp_path / "parts", PrepareOptions(workers=1))
    assert 0 < len(redone) < 250
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert prepare(source, tokenizer, tmp_path / "parts").fingerprint == whole.fingerprint


def test_refusals(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match=r"empty\.txt: no text in it .*empty file"):
        prepare([str(tmp_path / "empty.txt")], tokenizer, tmp_path / "s1")
    (tmp_path / "empty.txt").write_text("the dog runs.")
    assert prepare([str(tmp_path / "empty.txt")], tokenizer, tmp_path / "s1").manifest["documents"] == 1
    with pytest.raises(UserError, match="no such token store"):
        TokenStore(tmp_path / "absent")
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        TokenStore(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        prepare([str(tmp_path / "empty.txt")], tokenizer, tmp_path / "file" / "store")
    with pytest.raises(UserError, match="workers=0"):
        prepare([str(tmp_path / "empty.txt")], tokenizer, tmp_path / "s2", PrepareOptions(workers=0))
    with pytest.raises(UserError, match="validation=2"):
        prepare([str(tmp_path / "empty.txt")], tokenizer, tmp_path / "s2", PrepareOptions(validation=2))


def test_a_store_whose_vocabulary_was_exchanged_is_refused(tmp_path: Path, minilm: Path) -> None:
    write_corpus(tmp_path / "c.jsonl")
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store")
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "store" / "tokenizer" / name).write_bytes((minilm / name).read_bytes())
    with pytest.raises(UserError, match="another store's"):
        store.tokenizer()


def test_changed_sources_are_noticed(tmp_path: Path) -> None:
    source, tokenizer = tmp_path / "c.jsonl", tiny_tokenizer()
    write_corpus(source)
    prepare([str(source)], tokenizer, tmp_path / "store")
    content = source.read_text()
    source.write_text(content.replace("dog", "cat", 1))
    with pytest.raises(UserError, match=r"made otherwise: \S*c\.jsonl has changed since; overwrite=True"):
        prepare([str(source)], tokenizer, tmp_path / "store")
    source.write_text(content)
    (tmp_path / "d.txt").write_text("the dog runs.")
    with pytest.raises(UserError, match=r"d\.txt is new; \S*c\.jsonl is gone"):
        prepare([str(tmp_path / "d.txt")], tokenizer, tmp_path / "store")
    changed = PrepareOptions(CorpusOptions(skip_bad=True, documents="blank-line"))
    with pytest.raises(UserError, match=r"documents was file, now blank-line; skip_bad was not given then; over"):
        prepare([str(source)], tokenizer, tmp_path / "store", changed)
    with pytest.raises(UserError, match="the vocabulary is another"):
        prepare([str(source)], Tokenizer.train(lambda: ["the dog runs"], 60, True), tmp_path / "store")


def test_the_same_files_by_other_names_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "c.jsonl")
    first = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    assert prepare(["c.jsonl"], tiny_tokenizer(), tmp_path / "store").fingerprint == first.fingerprint


def test_what_a_mistake_left_behind_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure that the error names works, whether the mistake was found before anything was written or after."""
    (tmp_path / "a.txt").write_text("the dog runs. " * 40)
    (tmp_path / "b.txt").write_bytes(b"the cat sl\xc4ps.\nthe dog runs.\n")
    sources, out = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], tmp_path / "store"
    cure = PrepareOptions(CorpusOptions(skip_bad=True), workers=1)
    with pytest.raises(UserError, match="skip_bad=True leaves such text out"):
        prepare(sources, tiny_tokenizer(), out)
    assert not out.exists()
    monkeypatch.setattr(preparation, "BATCH_CHARACTERS", 100)
    copies = [str(tmp_path / f"{number}.txt") for number in range(9)]
    for copy in copies:
        Path(copy).write_text("the dog runs. " * 40)
    with pytest.raises(UserError, match="skip_bad=True leaves such text out"):
        prepare([*copies, sources[1]], tiny_tokenizer(), out, PrepareOptions(workers=1))
    assert not (tmp_path / "store.parts").exists(), "no part was complete"
    assert prepare([*copies, sources[1]], tiny_tokenizer(), out, cure).manifest["documents"] == 10
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json", "tokenizer", "train-00000.arrow", "validation-00000.arrow",
    ]  # fmt: skip


def test_overwriting_begins_anew_once_there_is_something_to_write(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl")
    (tmp_path / "bad.txt").write_bytes(b"\xc4\n")
    first = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store")
    with pytest.raises(UserError, match="not UTF-8"):
        prepare([str(tmp_path / "bad.txt")], tiny_tokenizer(), tmp_path / "store", overwrite=True)
    assert TokenStore(tmp_path / "store").fingerprint == first.fingerprint
    write_corpus(tmp_path / "c.jsonl", seed=5)
    second = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store", overwrite=True)
    assert second.fingerprint != first.fingerprint
    assert TokenStore(tmp_path / "store").fingerprint == second.fingerprint
    (tmp_path / "store" / "thesis.docx").write_text("precious")
    with pytest.raises(UserError, match=r"store holds something else \(thesis\.docx\)"):
        prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store", overwrite=True)


@pytest.mark.parametrize("share", [0, 1e-320, 0.02, 0.1, 0.3, 0.7, 0.999])
def test_the_share_held_out_is_the_share(share: float) -> None:
    held_out = [store_writer.is_held_out(number, Fraction(share).limit_denominator(10**6)) for number in range(5000)]
    assert not any(held_out[:9])
    assert held_out[9] == (share > 1e-6)
    assert abs(sum(held_out) - share * 4991) <= 1


def test_our_own_directories_are_no_text(tmp_path: Path) -> None:
    write_corpus(tmp_path / "texts.jsonl")
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("the dog runs. the cat sleeps.")
    (folder / "vocabulary").mkdir()
    tiny_tokenizer().save(folder / "vocabulary")
    first = prepare([str(folder)], tiny_tokenizer(), folder / "store")
    assert first.manifest["documents"] == 1
    assert prepare([str(folder)], tiny_tokenizer(), folder / "store").fingerprint == first.fingerprint


def test_what_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl")
    (tmp_path / "project" / "tokenizer").mkdir(parents=True)
    (tmp_path / "project" / "tokenizer" / "model.safetensors").write_text("precious")
    with pytest.raises(UserError, match=r"tokenizer holds something else \(model\.safetensors\)"):
        prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "project")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(UserError, match=r"not a token store: its manifest\.json lacks corpus, fingerprint"):
        TokenStore(tmp_path / "web")


def test_sentences_are_cut_by_the_rules_of_the_language(tmp_path: Path) -> None:
    text = "Am 3. Mai kommt der Vorsitzende. Er wohnt hier.\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.train(lambda: [text], 200, min_frequency=1)
    stores = {
        language: prepare([str(tmp_path / "a.txt")], tokenizer, tmp_path / language, PrepareOptions(language=language))
        for language in ("en", "de")
    }
    assert [store.manifest["sentences"] for store in stores.values()] == [3, 2]
    assert "language" not in stores["en"].manifest["recipe"]  # stores of before there were languages go on
    assert stores["de"].manifest["recipe"]["language"] == "de"
    with pytest.raises(UserError, match="language"):
        prepare([str(tmp_path / "a.txt")], tokenizer, tmp_path / "de")
    with pytest.raises(UserError, match=r"language='ger': expected one of am, .*, uk"):
        PrepareOptions(language="ger")


def test_every_language_that_is_accepted_has_rules_of_its_own() -> None:
    """Or at least cuts: sentencex takes any name, and cuts names it does not know as English."""
    for language in SENTENCE_LANGUAGES:
        assert split_sentences(Document("One two? Three four!", "a:1"), language) == ["One two?", "Three four!"], (
            language
        )


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (0, None),
        (1, "only one document is held out, so the figures say little, and none of next sentences: .*validation=0.2"),
        (4, "only 4 documents are held out, so the figures say little; validation=0.2 in preparing holds more out"),
        (5, None),
    ],
)
def test_few_held_out_documents_are_said(documents: int, message: str | None) -> None:
    said = few_held_out(documents)
    assert said is None if message is None else re.match(message, str(said))
