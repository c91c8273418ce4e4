"""Vocabularies of every kind, saved by the classes of `transformers`: read with the same ids and places.

The suite compares 1,000 lines of ten languages; `python -m tests.text.test_tokenizer_kinds` 10,000, which
takes about ten seconds a kind.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as BackendTokenizer

from bothways.errors import UserError
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sources import resolve_sources
from bothways.text.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

LANGUAGES = ("de", "fr", "es", "ru", "zh", "ko", "ja", "tr", "ar", "hi")
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def lines_of(folder: Path, language: str) -> Iterator[str]:
    """The lines of a language, cut at 300 characters."""
    documents = read_documents(
        resolve_sources([str(folder / f"{language}*.jsonl.zst")]), CorpusOptions(), CorpusReport()
    )
    return (line[:300] for document in documents for line in document.text.splitlines() if line.strip())


def lines_in_turn(folder: Path, count: int) -> list[str]:
    """So many lines, of each language in turn for as long as it has any."""
    turns = itertools.zip_longest(*(lines_of(folder, language) for language in LANGUAGES))
    return list(itertools.islice((line for turn in turns for line in turn if line is not None), count))


@pytest.fixture(scope="module")
def sample(shared_data: Path) -> list[str]:
    return lines_in_turn(shared_data / "text-multilingual", 1000)


def byte_bpe(texts: list[str], special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and its merges."""
    backend = BackendTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def unigram(texts: list[str], special: list[str], normalizer: Any = None) -> list[tuple[str, float]]:
    """Pieces and their scores, in 1024ths: sums of them are exact, so that two ways to cut a text which are equally
    good ("." and "..", ".." and ".") stay so whatever reads the scores, and the same one of them is taken."""
    backend = BackendTokenizer(models.Unigram())
    backend.normalizer = normalizer or normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = next(token for token in special if "unk" in token)
    trainer = trainers.UnigramTrainer(vocab_size=2500, special_tokens=special, unk_token=unknown, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return [(piece, round(score * 1024) / 1024) for piece, score in json.loads(backend.to_str())["model"]["vocab"]]


def roberta(texts: list[str]) -> Any:
    vocabulary, merges = byte_bpe(texts, ROBERTA)
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=merges)


def roberta_with_blank(texts: list[str]) -> Any:
    vocabulary, merges = byte_bpe(texts, ROBERTA)
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, add_prefix_space=True)


def gpt2(texts: list[str]) -> Any:
    vocabulary, merges = byte_bpe(texts, ["<|endoftext|>"])
    return transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges)


def xlm_roberta(texts: list[str]) -> Any:
    return transformers.XLMRobertaTokenizer(vocab=unigram(texts, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))


def camembert(texts: list[str]) -> Any:
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
    return transformers.CamembertTokenizer(vocab=unigram(texts, special))


def albert(texts: list[str]) -> Any:
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return transformers.AlbertTokenizer(vocab=unigram([text.lower() for text in texts], special))


def mpnet(texts: list[str]) -> Any:
    pieces = Tokenizer.train(lambda: texts, 3500).pieces()
    names = {"[CLS]": "<s>", "[PAD]": "<pad>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    return transformers.MPNetTokenizer(vocab={names.get(piece, piece): id for id, piece in enumerate(pieces)})


def modernbert(texts: list[str]) -> Any:
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    vocabulary, merges = byte_bpe(texts, special)
    backend = BackendTokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.normalizer = normalizers.NFC()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, lstrip=token == "[MASK]") for token in special]
    )
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    backend = BackendTokenizer.from_str(
        json.dumps({**json.loads(backend.to_str()), "post_processor": json.loads(template.__getstate__())})
    )
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)


KINDS: dict[str, tuple[str, Callable[[list[str]], Any]]] = {
    "roberta": ("byte-bpe", roberta),
    "roberta-blank": ("byte-bpe", roberta_with_blank),
    "gpt2": ("byte-bpe", gpt2),
    "xlm-roberta": ("unigram", xlm_roberta),
    "camembert": ("unigram", camembert),
    "albert": ("unigram", albert),
    "mpnet": ("wordpiece", mpnet),
    "modernbert": ("byte-bpe", modernbert),
}


@pytest.fixture(scope="module", params=KINDS)
def saved(
    request: pytest.FixtureRequest, sample: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param][1](sample[::2]).save_pretrained(folder)
    return request.param, folder


def require_the_same(ours: Tokenizer, theirs: Any, texts: list[str]) -> int:
    """Fails for a text of which ids or places differ. Returns the number of tokens that were compared."""
    expected = theirs(texts, return_offsets_mapping=True, add_special_tokens=False)
    found = zip(texts, ours.encode_batch(texts), expected["input_ids"], expected["offset_mapping"], strict=True)
    for text, pieces, their_ids, their_places in found:
        assert pieces.input_ids.tolist() == their_ids, text
        for (start, end), (their_start, their_end) in zip(pieces.offsets.tolist(), their_places, strict=True):
            if (start, end) != (their_start, their_end):
                # ours end behind the marks of their letter, and begin behind blanks
                assert text[start:end].startswith(text[their_start:their_end].lstrip(" ")), (text, start, end)
    return sum(map(len, expected["input_ids"]))


def test_ids_and_places_are_those_of_transformers(saved: tuple[str, Path], sample: list[str]) -> None:
    name, folder = saved
    ours = Tokenizer.load(folder)
    assert ours.kind == KINDS[name][0]
    assert require_the_same(ours, transformers.AutoTokenizer.from_pretrained(folder), sample) > 50 * len(sample)


def test_the_template_is_that_of_transformers(saved: tuple[str, Path]) -> None:
    name, folder = saved
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    a, b = (ours.encode(text) for text in ("der Hund", "the dog runs"))
    single, pair = theirs("der Hund"), theirs("der Hund", "the dog runs", return_token_type_ids=True)
    assert ours.with_special_tokens([a])[0].input_ids.tolist() == single["input_ids"]
    pieces, segments = ours.with_special_tokens([a, b])
    types = ours.token_type_ids(segments)
    if name == "gpt2":  # which has no template for two texts
        assert pieces.input_ids.tolist() == [*a.input_ids, ours.sep_id, *b.input_ids]
        return
    assert pieces.input_ids.tolist() == pair["input_ids"]
    if name == "albert":
        assert types.tolist() == pair["token_type_ids"]
    else:
        assert not types.any()


def test_saved_again_it_is_the_same(saved: tuple[str, Path], sample: list[str], tmp_path: Path) -> None:
    _, folder = saved
    ours = Tokenizer.load(folder)
    ours.save(tmp_path)
    again, theirs = Tokenizer.load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert (again.roles, again.template) == (ours.roles, ours.template)
    for text in sample[::7]:
        assert theirs(text)["input_ids"] == ours.with_special_tokens([ours.encode(text)])[0].input_ids.tolist()
    in_another_process = Tokenizer.from_json(ours.to_json())
    assert in_another_process.encode_ids(sample) == ours.encode_ids(sample)


@pytest.mark.parametrize("saved", ["roberta", "roberta-blank", "gpt2"], indirect=True)  # modernbert's NFC composes
def test_a_text_comes_back(saved: tuple[str, Path], sample: list[str]) -> None:
    _, folder = saved
    tokenizer = Tokenizer.load(folder)
    for text in sample:
        ids = tokenizer.encode(text, special_tokens=False).input_ids.tolist()
        assert tokenizer.decode(ids).lstrip(" ") == text.lstrip(" ")
        assert "".join(tokenizer.text_pieces(ids)).lstrip(" ") == text.lstrip(" ")


def test_a_literal_mask_is_a_token_only_where_it_is_asked_for(saved: tuple[str, Path]) -> None:
    name, folder = saved
    tokenizer = Tokenizer.load(folder)
    if name == "gpt2":
        assert tokenizer.mask_id == -1
        return
    mask = tokenizer.roles["mask"]
    assert tokenizer.mask_id in tokenizer.encode(f"the {mask} runs").input_ids
    assert tokenizer.mask_id not in tokenizer.encode(f"the {mask} runs", special_tokens=False).input_ids


def test_a_vocabulary_of_bytes_is_learnt_the_same_every_time(tmp_path: Path) -> None:
    texts = ["the old dog runs in the house", "naïve café, don't!", "東京の犬"] * 3
    first, second = Tokenizer.train_byte_bpe(lambda: texts, 320), Tokenizer.train_byte_bpe(lambda: texts[::-1], 320)
    assert first.pieces() == second.pieces()
    assert first.fingerprint == second.fingerprint
    first.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (
        theirs("the café")["input_ids"] == first.with_special_tokens([first.encode("the café")])[0].input_ids.tolist()
    )


@pytest.mark.parametrize("saved", ["roberta", "gpt2"], indirect=True)
def test_files_of_gpt2_without_a_tokenizer_json(saved: tuple[str, Path], sample: list[str], tmp_path: Path) -> None:
    name, folder = saved
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}), encoding="utf-8")
    ours, bare = Tokenizer.load(folder), Tokenizer.load(tmp_path)
    assert bare.template == ours.template
    assert bare.encode_ids(sample) == ours.encode_ids(sample)


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(b"x")
    with pytest.raises(UserError, match=r"spiece\.model: a sentencepiece model; save it with transformers first"):
        Tokenizer.load(tmp_path)
    backend = BackendTokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="BPE over characters"):
        Tokenizer.load(tmp_path)


def main() -> None:
    """Compare 10,000 lines with every kind."""
    lines = lines_in_turn(Path(__file__).resolve().parents[3] / "shared" / "data" / "text-multilingual", 10_000)
    for name, (_, train) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            train(lines[:500]).save_pretrained(folder)
            tokens = require_the_same(Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder), lines)
        print(f"{name}: {len(lines):,} lines, {tokens:,} tokens, all the same", flush=True)


if __name__ == "__main__":
    main()
