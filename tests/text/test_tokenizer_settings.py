"""A directory's tokenizer cuts text as `transformers.AutoTokenizer` does, or is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.errors import UserError
from bothways.model.families import head_builder
from bothways.text.tokenizer import Tokenizer
from tests.helpers import tiny_config, tiny_tokenizer

SIZE = tiny_tokenizer().vocab_size
TEXTS = [
    "<dev>the router</dev>",
    "<DEV> the [MASK] dog",
    "the<dev>dog and a  <dev>  cat",
    "Theta DOG <e1>café</e1>",
    "new-york NEWYORK newyorker 東京",
]


def directory(tmp_path: Path, *dropped: str, **files: dict[str, Any]) -> Path:
    """A model's directory without some files; those named are written, tokenizer_config and config over what they
    say."""
    path = tmp_path / "model"
    save_checkpoint(Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer()), path)
    for name in (*dropped, "bothways.json"):
        (path / name).unlink()
    for name, content in files.items():
        file = path / f"{name}.json"
        said = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**said, **content}))
    return path


def flags(content: str, **others: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("lstrip", "rstrip", "single_word", "special"), False)
    return {"content": content, "normalized": True, **plain, **others}


def decoder(*tokens: dict[str, Any]) -> dict[str, Any]:
    return {"tokenizer_config": {"added_tokens_decoder": {str(SIZE + n): token for n, token in enumerate(tokens)}}}


LIKE_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "added_tokens.json": {"added_tokens": {"<dev>": SIZE, "</dev>": SIZE + 1}},
    "not in order": {"added_tokens": {"</dev>": SIZE + 1, "<dev>": SIZE}},
    "special in added_tokens.json": {
        "added_tokens": {"<dev>": SIZE, "</dev>": SIZE + 1},
        "special_tokens_map": {"additional_special_tokens": ["<dev>"]},
    },
    "decoder": decoder(flags("<dev>"), flags("</dev>", normalized=False, lstrip=True, rstrip=True)),
    "special in the decoder": decoder(
        flags("<dev>", special=True, normalized=False), flags("</dev>", single_word=True)
    ),
    "a word in the decoder": decoder(flags("NewYork")),
    "additional_special_tokens": {"tokenizer_config": {"additional_special_tokens": ["<dev>", "</dev>"]}},
    "extra_special_tokens": {"tokenizer_config": {"extra_special_tokens": {"device": "<dev>"}}},
    "special_tokens_map.json": {"special_tokens_map": {"additional_special_tokens": ["<dev>"]}},
    "bos_token": {"tokenizer_config": {"bos_token": "<dev>"}},
    "cased": {"tokenizer_config": {"do_lower_case": False}},
    "accents kept": {"tokenizer_config": {"strip_accents": False}},
    "Chinese words": {"tokenizer_config": {"tokenize_chinese_chars": False}},
    "DistilBERT's name": {"tokenizer_config": {"tokenizer_class": "DistilBertTokenizerFast"}},
}


@pytest.mark.filterwarnings("ignore:.*text is not lower-cased")
@pytest.mark.parametrize("dropped", [("tokenizer.json",), ()], ids=["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("case", LIKE_TRANSFORMERS)
def test_ids_are_those_of_transformers(case: str, dropped: tuple[str, ...], tmp_path: Path) -> None:
    path = directory(tmp_path, *dropped, **LIKE_TRANSFORMERS[case])
    ours, theirs = Tokenizer.load(path), AutoTokenizer.from_pretrained(path)
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert [ours.encode(text).input_ids.tolist() for text in TEXTS] == expected
    assert ours.vocab_size == len(theirs)
    without_mask = [text for text in TEXTS if "[MASK]" not in text]
    assert ours.encode_ids(without_mask) == [ids for ids, text in zip(expected, TEXTS, strict=True) if "[M" not in text]
    (tmp_path / "again").mkdir()
    ours.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # with both, and with vocab.txt alone
        again = Tokenizer.load(tmp_path / "again")
        assert [again.encode(text).input_ids.tolist() for text in TEXTS] == expected
        assert again.fingerprint == ours.fingerprint
        if name == "tokenizer.json":
            (tmp_path / "again" / name).unlink()


def test_a_generic_tokenizer_is_its_file_alone(tmp_path: Path) -> None:
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}
    path = directory(tmp_path, tokenizer_config=stated)
    theirs = AutoTokenizer.from_pretrained(path)("Theta DOG", add_special_tokens=False)["input_ids"]
    assert Tokenizer.load(path).encode("Theta DOG").input_ids.tolist() == theirs


def test_a_model_with_added_tokens_reads_them(tmp_path: Path) -> None:
    files = LIKE_TRANSFORMERS["added_tokens.json"]
    path = directory(tmp_path, "tokenizer.json", **files, config={"vocab_size": SIZE + 2})
    weights = load_file(path / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith("word_embeddings.weight") or name == "cls.predictions.bias":
            weights[name] = torch.cat([tensor, torch.ones(2, *tensor.shape[1:])])
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    model = bw.load(path)
    states = model.hidden_states("<dev>dog</dev>")
    assert len(states) == 5
    assert model.tokenizer.encode("<dev>dog</dev>").input_ids[[0, -1]].tolist() == [SIZE, SIZE + 1]
    (path / "added_tokens.json").write_text(json.dumps({"<dev>": SIZE, "</dev>": SIZE + 1, "<x>": SIZE + 2}))
    with pytest.raises(UserError, match=rf"the tokenizer has {SIZE + 3} pieces, config.json has vocab_size {SIZE + 2}"):
        bw.load(path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "MeCab": ({"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}}, "'BertJapaneseTokenizer' cuts text"),
    "in config.json": (
        {"tokenizer_config": {"tokenizer_class": None}, "config": {"tokenizer_class": "BertJapaneseTokenizer"}},
        r"config\.json: tokenizer_class 'BertJapaneseTokenizer'",
    ),
    "RoBERTa": (
        {"tokenizer_config": {"tokenizer_class": "RobertaTokenizerFast"}},
        "tokenizer_class RobertaTokenizer is byte-bpe, but .* holds wordpiece",
    ),
    "words by MeCab": ({"tokenizer_config": {"word_tokenizer_type": "mecab"}}, "word_tokenizer_type is 'mecab'"),
    "characters": ({"tokenizer_config": {"subword_tokenizer_type": "character"}}, "subword_tokenizer_type is 'charac"),
    "no words": ({"tokenizer_config": {"do_basic_tokenize": False}}, "do_basic_tokenize is False"),
    "never split": ({"tokenizer_config": {"never_split": ["e.g."]}}, "never_split is"),
    "another mask": ({"tokenizer_config": {"mask_token": "<mask>"}}, "mask_token is '<mask>'"),
    "another mask in the map": ({"special_tokens_map": {"mask_token": flags("<mask>")}}, "mask_token is '<mask>'"),
    "a gap": ({"added_tokens": {"<dev>": SIZE + 5}}, rf"'<dev>' has the id {SIZE + 5}, but the vocabulary gives it 80"),
    "a taken id": ({"added_tokens": {"<dev>": 7}}, "'<dev>' has the id 7"),
    "an id that is none": ({"added_tokens": {"<dev>": "x"}}, "the id 'x', expected a whole number"),
    "no token": (decoder({"content": None}), "expected a token with its flags"),
    "do_lower_case": ({"tokenizer_config": {"do_lower_case": "no"}}, "do_lower_case is 'no', expected true or false"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_tokenizer_is_refused_by_name(case: str, tmp_path: Path) -> None:
    files, message = REFUSED[case]
    for dropped in (("tokenizer.json",), ()):
        path = directory(tmp_path, *dropped, **files)
        with pytest.raises(UserError, match=message) as refusal:
            bw.load(path)
        assert "\n" not in str(refusal.value)
        shutil.rmtree(path)


def test_vocabularies_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = directory(tmp_path, "tokenizer.json")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (path / "vocab.txt").write_text("\n".join([*special, "▁the", "▁dog", "s", "ing"]) + "\n")
    with pytest.raises(UserError, match="no piece begins with ##, and 2 mark words as '▁the' does"):
        Tokenizer.load(path)
    (path / "vocab.txt").write_text("\n".join([*special, "acg", "cgt", "gta"]) + "\n")  # whole words are WordPiece too
    assert Tokenizer.load(path).encode("acg tttt").input_ids.tolist() == [5, 1]
    path = directory(tmp_path)
    state = json.loads((path / "tokenizer.json").read_text())
    state["model"]["continuing_subword_prefix"] = "@@"
    (path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="continues words with '@@'"):
        Tokenizer.load(path)


def test_a_cased_vocabulary_that_is_lower_cased_is_said(tmp_path: Path, minilm: Path) -> None:
    text = "Anna Berg met Nils Holm in Rome and Oslo"
    Tokenizer.train(lambda: [text] * 3, 400, False, 1).save(tmp_path)
    Tokenizer.load(tmp_path)  # says nothing: warnings are errors here
    (tmp_path / "tokenizer.json").unlink()
    Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.warns(UserWarning, match=r"vocab\.txt: text is lower-cased, but \d+ of \d+ pieces have capitals"):
        Tokenizer.load(tmp_path)
    path = directory(tmp_path, tokenizer_config={"do_lower_case": False})
    with pytest.warns(UserWarning, match="is not lower-cased, but no piece has a capital"):
        Tokenizer.load(path)
    Tokenizer.load(minilm)
