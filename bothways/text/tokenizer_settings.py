"""What the files of a tokenizer's directory say beside the vocabulary, read as `transformers.AutoTokenizer` reads them.

`tokenizer_config.json`, `added_tokens.json`, `special_tokens_map.json` and the class that `config.json` names. What
changes how text is read is honoured or refused by name.
"""

from __future__ import annotations

import json
import string
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from bothways.errors import UserError
from bothways.files import read_json
from bothways.text.lines import is_unicode
from bothways.text.tokenizer_backend import MAX_WORD_CHARACTERS

ROLE_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# Other names of BERT's tokenizer: the same cutting and the same options.
BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
# Classes that are nothing but their tokenizer.json; options in tokenizer_config.json do not count for them.
GENERIC_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
# Of a vocabulary's pieces. Uncased ones have no capitals at all, BERT's cased one has them in a third of its pieces.
CAPITALS_SHARE = 0.05
MARKED_SHARE = 0.05  # of pieces, with the marks of sentencepiece or BPE; they have them in about half
# Options that cut text otherwise than WordPiece over BERT's words, and the values that do not.
FOREIGN_OPTIONS: dict[str, tuple[Any, ...]] = {
    "word_tokenizer_type": ("basic",),
    "subword_tokenizer_type": ("wordpiece",),
    "do_word_tokenize": (True,),
    "do_subword_tokenize": (True,),
    "do_basic_tokenize": (True,),
}


@dataclass(frozen=True)
class TokenizerSettings:
    """What a directory says of its tokenizer.

    normalisation: `lowercase`, `strip_accents` and `handle_chinese_chars`, each where the directory states it.
    added: tokens that are cut out of a text before its words, with their ids; None where the next free id is meant.
    source: the file that names them. generic: whether tokenizer.json alone says how text is normalised.
    max_word_characters: a longer word is `[UNK]`; 100 in google-research/bert and `transformers`.
    """

    normalisation: Mapping[str, Any]
    added: tuple[tuple[AddedToken, int | None], ...] = ()
    source: str = ""
    generic: bool = False
    max_word_characters: int = MAX_WORD_CHARACTERS


def read_settings(directory: Path) -> TokenizerSettings:
    """Reads the settings of a tokenizer's directory; without any file they are BERT's own.

    Raises UserError for a tokenizer that is not BERT's, and for values that cannot be.
    """
    path = directory / "tokenizer_config.json"
    settings = _optional_json(path)
    generic = _is_generic(directory, path, settings)
    for option, accepted in FOREIGN_OPTIONS.items():
        if settings.get(option) not in (None, *accepted):
            raise UserError(
                f"{path}: {option} is {settings[option]!r}: this tokenizer cuts text otherwise than BERT's WordPiece, "
                "which alone is read here"
            )
    never_split = settings.get("never_split") or []
    if not isinstance(never_split, list) or set(map(str, never_split)) - set(ROLE_TOKENS.values()):
        raise UserError(f"{path}: never_split is {str(never_split)[:60]}; words that are never split are not read here")
    decoder = settings.get("added_tokens_decoder")
    source = path
    added: list[tuple[AddedToken, int | None]] = []
    if decoder is None:  # as saved before transformers 4.34
        named = _optional_json(directory / "special_tokens_map.json")
        source = directory / "added_tokens.json"
        # `transformers` 5 does not count these as special, so that they are found in text of any case
        special = {name: value for name, value in named.items() if name != "additional_special_tokens"}
        decoder = _added_by_id(source, _special_texts(settings | special))
        settings = settings | named
    added += [(token, index) for index, token in sorted(_decoded(source, decoder).items())]
    contents = {token.content for token, _ in added} | set(ROLE_TOKENS.values())
    added += [(token, None) for token in _special_tokens(path, settings) if token.content not in contents]
    return TokenizerSettings(
        _normalisation(path, settings), tuple(added), str(source), generic, _max_word_characters(path, settings)
    )


def _max_word_characters(path: Path, settings: Mapping[str, Any]) -> int:
    limit = settings.get("max_input_chars_per_word", MAX_WORD_CHARACTERS)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit < 1 << 31:
        raise UserError(f"{path}: max_input_chars_per_word is {str(limit)[:40]!a}, expected a number of characters")
    return limit


def add_tokens(backend: Tokenizer, settings: TokenizerSettings) -> None:
    """Add the tokens that a directory names beside its vocabulary. Raises UserError where one gets another id."""
    for token, index in settings.added:
        backend.add_tokens([token])
        found = backend.token_to_id(token.content)
        if index is not None and found != index:
            raise UserError(
                f"{settings.source}: the added token {token.content[:60]!a} has the id {index}, but the vocabulary "
                f"gives it {found}; the two belong to different models"
            )


def with_added_as_words(content: str) -> str:
    """The content of `tokenizer.json` with no special tokens but BERT's own: the others are no template's."""
    state = json.loads(content)
    others = [
        token for token in state["added_tokens"] if token["special"] and token["content"] not in ROLE_TOKENS.values()
    ]
    for token in others:
        token["special"] = False
    return json.dumps(state) if others else content


def _is_generic(directory: Path, path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the tokenizer's class is one that says nothing. Raises UserError for a class that is not BERT's."""
    named = settings.get("tokenizer_class")
    if named is None and (directory / "config.json").exists():
        path = directory / "config.json"
        named = _optional_json(path).get("tokenizer_class")
    if named is None:
        return False
    bare = str(named).removesuffix("Fast")
    if bare not in BERT_CLASSES + GENERIC_CLASSES:
        raise UserError(
            f"{path}: tokenizer_class {str(named)[:60]!r} cuts text otherwise than BERT's WordPiece; read are "
            f"{', '.join(BERT_CLASSES)}, with and without Fast, and PreTrainedTokenizerFast"
        )
    return bare in GENERIC_CLASSES


def _normalisation(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of BERT's normalisation that are stated, under the names that `tokenizers` has for them."""
    names = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }
    stated = {}
    for name, ours in names.items():
        value = settings.get(name)
        if value is not None and not isinstance(value, bool):
            raise UserError(f"{path}: {name} is {str(value)[:60]!r}, expected true or false")
        if value is not None or (name == "strip_accents" and name in settings):
            stated[ours] = value
    return stated


def _special_tokens(path: Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    """Special tokens beside BERT's five. Raises UserError where one of the five is another token here."""
    for role, token in ROLE_TOKENS.items():
        stated = _content(settings.get(role))
        if stated is not None and stated != token:
            raise UserError(
                f"{path.parent}: {role} is {str(stated)[:60]!r}; in the vocabularies that are read here it is {token}"
            )
    return [AddedToken(text, special=True, normalized=False) for text in _special_texts(settings)]


def _special_texts(settings: Mapping[str, Any]) -> list[str]:
    """The contents of special tokens beside BERT's five, in the order in which `transformers` adds them."""
    values = [value for name, value in settings.items() if name.endswith("_token") and name not in ROLE_TOKENS]
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    values += extra.values() if isinstance(extra, dict) else extra if isinstance(extra, list) else []
    texts = [text for text in map(_content, values) if isinstance(text, str) and text and is_unicode(text)]
    return [text for text in dict.fromkeys(texts) if text not in ROLE_TOKENS.values()]


def _content(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value if isinstance(value, str) else None


def _added_by_id(path: Path, special: list[str]) -> dict[str, Any]:
    """`added_tokens.json`, token to id, as an `added_tokens_decoder`."""
    return {
        str(index): {"content": token, "special": token in special, "normalized": token not in special}
        for token, index in _optional_json(path).items()
    }


def _decoded(path: Path, decoder: Any) -> dict[int, AddedToken]:
    """The tokens of an `added_tokens_decoder` by id."""
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    tokens = {}
    if not isinstance(decoder, dict):
        raise UserError(f"{path}: added_tokens_decoder is {str(decoder)[:60]!r}, expected ids with their tokens")
    for index, token in decoder.items():
        content = token.get("content") if isinstance(token, dict) else None
        stated = {flag: token[flag] for flag in flags if flag in token} if isinstance(token, dict) else {}
        number = str(index)
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise UserError(f"{path}: an added token has the id {number[:60]!r}, expected a whole number")
        if (
            not isinstance(content, str)
            or not content
            or not is_unicode(content)
            or not all(isinstance(flag, bool) for flag in stated.values())
        ):
            raise UserError(f"{path}: the added token {number} is {str(token)[:60]!a}, expected a token with its flags")
        tokens[int(number)] = AddedToken(content, **stated)
    return tokens


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def check_vocabulary(path: Path, pieces: Sequence[str], lowercase: bool) -> None:
    """Warns of a vocabulary that another case was meant for. path: its file, for messages.

    Raises UserError for one that marks the parts of words otherwise than WordPiece does.
    """
    words = [piece.removeprefix("##") for piece in pieces if not piece.startswith("[")]
    marked = [word for word in words if len(word) > 1 and (word[0] in "▁Ġ" or word.endswith(("</w>", "@@")))]
    if len(marked) > MARKED_SHARE * len(words) and not any(piece.startswith("##") for piece in pieces):
        raise UserError(
            f"{path}: no piece begins with ##, and {len(marked):,} mark words as {marked[0]!r} does: a vocabulary of "
            "another kind (sentencepiece, BPE), not WordPiece"
        )
    capitals = [word for word in words if word != word.lower()]
    if lowercase and len(capitals) > CAPITALS_SHARE * len(words):
        warnings.warn(
            f"{path}: text is lower-cased, but {len(capitals):,} of {len(pieces):,} pieces have capitals ({capitals[0]}"
            ", …) and are never used; if the model is cased, put do_lower_case false into tokenizer_config.json",
            stacklevel=3,
        )
    letters = {word for word in words if len(word) == 1 and word.isascii()}
    if not lowercase and not capitals and letters.issuperset(string.ascii_lowercase):
        warnings.warn(
            f"{path}: text is not lower-cased, but no piece has a capital, so that words with one are [UNK]; if the "
            "model is uncased, put do_lower_case true into tokenizer_config.json",
            stacklevel=3,
        )
