"""What the files of a tokenizer's directory say beside the vocabulary, read as `transformers.AutoTokenizer` reads them.

`tokenizer_config.json`, `added_tokens.json`, `special_tokens_map.json` and the class that `config.json` names. What
changes how text is read is honoured or refused by name.
"""

from __future__ import annotations

import json
import string
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import Tokenizer as BackendTokenizer

from bothways.errors import UserError
from bothways.files import read_json
from bothways.text.lines import is_unicode
from bothways.text.special_tokens import STATED_NAMES
from bothways.text.tokenizer_backend import (
    MAX_WORD_CHARACTERS,
    SPECIAL_TOKENS,
    TokenizerKind,
    bert_backend,
    bert_normalizer,
    kind_of,
    read_backend,
    read_byte_bpe,
    read_pieces,
)

# Names of BERT's tokenizer: the same cutting and the same options. MPNet's has other special tokens.
BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer")
BYTE_BPE_CLASSES = ("RobertaTokenizer", "GPT2Tokenizer")
UNIGRAM_CLASSES = ("XLMRobertaTokenizer", "CamembertTokenizer", "AlbertTokenizer")
CLASSES: dict[TokenizerKind, tuple[str, ...]] = {
    "wordpiece": BERT_CLASSES,
    "byte-bpe": BYTE_BPE_CLASSES,
    "unigram": UNIGRAM_CLASSES,
}
# Classes that are nothing but their tokenizer.json; options in tokenizer_config.json do not count for them.
GENERIC_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
# Of a vocabulary's pieces. Uncased ones have no capitals at all, BERT's cased one has them in a third of its pieces.
CAPITALS_SHARE = 0.05
MARKED_SHARE = 0.05  # of pieces, with the marks of sentencepiece or BPE; they have them in about half
# Options that cut text otherwise than WordPiece over BERT's words, and the values that do not.
# Of tokenizer_config.json; made anew when it is written, or said in tokenizer.json.
UNWRITTEN = ("added_tokens_decoder", "model_max_length", "name_or_path", "special_tokens_map_file", "auto_map")
NONCHARACTER = "\ufdd0"  # of Unicode, for use inside programs: no text has it
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
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
    max_word_characters: a longer word is `[UNK]`; 100 in google-research/bert and `transformers`. stated: what
    tokenizer_config.json says, special tokens as text. bare_class: the tokenizer's class without `Fast`; empty where
    none is named.
    """

    normalisation: Mapping[str, Any]
    added: tuple[tuple[AddedToken, int | None], ...] = ()
    source: str = ""
    generic: bool = False
    max_word_characters: int = MAX_WORD_CHARACTERS
    stated: Mapping[str, Any] = field(default_factory=dict)
    bare_class: str = ""


def read_settings(directory: Path) -> TokenizerSettings:
    """Reads the settings of a tokenizer's directory; without any file they are BERT's own.

    Raises UserError for a class of tokenizer that is not read, and for values that cannot be.
    """
    path = directory / "tokenizer_config.json"
    settings = _optional_json(path)
    bare_class = _class_of(directory, path, settings)
    for option, accepted in FOREIGN_OPTIONS.items():
        if settings.get(option) not in (None, *accepted):
            raise UserError(
                f"{path}: {option} is {settings[option]!r}: this tokenizer cuts text otherwise than BERT's WordPiece, "
                "which alone is read here"
            )
    never_split = settings.get("never_split") or []
    if not isinstance(never_split, list) or set(map(str, never_split)) - set(SPECIAL_TOKENS):
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
    stated = {name: _content(value) if name.endswith("_token") else value for name, value in settings.items()}
    roles = set(SPECIAL_TOKENS).union(_role_texts(stated))
    contents = {token.content for token, _ in added} | roles
    special_texts = [text for text in _special_texts(settings) if text not in contents]
    added += [(AddedToken(text, special=True, normalized=False), None) for text in special_texts]
    return TokenizerSettings(
        _normalisation(path, settings),
        tuple(added),
        str(source),
        bare_class in GENERIC_CLASSES,
        _max_word_characters(path, settings),
        {name: value for name, value in stated.items() if value is not None and name not in UNWRITTEN},
        bare_class,
    )


def read_vocabulary(directory: Path, settings: TokenizerSettings) -> tuple[Path, BackendTokenizer]:
    """The file of a vocabulary and its tokenizer: `tokenizer.json`, `vocab.txt`, or `vocab.json` with `merges.txt`.

    What `tokenizer_config.json` states of the normalisation holds, as in `transformers`. Raises UserError where none of
    the files is there, and for special tokens that are stated and not in the vocabulary.
    """
    path = next((path for name in VOCABULARIES if (path := directory / name).exists()), None)
    if path is None:
        model = next(directory.glob("*.model"), None)
        if model is not None:
            raise UserError(f"{model}: a sentencepiece model; save it with transformers first, as tokenizer.json")
        raise UserError(f"{directory}: not a tokenizer directory: {', '.join(VOCABULARIES)} are all missing")
    backend = _read_vocabulary(path, settings)
    vocabulary = backend.get_vocab(with_added_tokens=True)
    for name, *_ in STATED_NAMES.values():
        token = settings.stated.get(name)
        if isinstance(token, str) and token not in vocabulary:
            raise UserError(f"{directory}: {name} is {token[:60]!a}, which {path.name} does not have")
    wanted = next((kind for kind, classes in CLASSES.items() if settings.bare_class in classes), kind_of(backend))
    if wanted != kind_of(backend):
        raise UserError(
            f"{directory}: tokenizer_class {settings.bare_class} is {wanted}, but {path.name} holds {kind_of(backend)}"
        )
    return path, backend


def _read_vocabulary(path: Path, settings: TokenizerSettings) -> BackendTokenizer:
    if path.name == "vocab.txt":
        normalizer = bert_normalizer(**{"lowercase": True, **settings.normalisation})
        return bert_backend(read_pieces(path), normalizer, settings.max_word_characters)
    if path.name == "vocab.json":
        backend = read_byte_bpe(path, "" if settings.bare_class == "GPT2Tokenizer" else "roberta")
    else:
        backend = read_backend(path)
    if settings.generic:
        return backend
    if isinstance(backend.normalizer, normalizers.BertNormalizer):
        for option, value in settings.normalisation.items():
            setattr(backend.normalizer, option, value)
    elif "lowercase" in settings.normalisation:
        lowers = bool(backend.normalizer) and backend.normalizer.normalize_str("A") == "a"
        if settings.normalisation["lowercase"] != lowers:
            raise UserError(f"{path}: tokenizer_config.json has do_lower_case {not lowers}, this file does {lowers}")
    with_blank = settings.stated.get("add_prefix_space")
    if isinstance(with_blank, bool) and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        backend.pre_tokenizer.add_prefix_space = with_blank
    return backend


def _max_word_characters(path: Path, settings: Mapping[str, Any]) -> int:
    limit = settings.get("max_input_chars_per_word", MAX_WORD_CHARACTERS)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit < 1 << 31:
        raise UserError(f"{path}: max_input_chars_per_word is {str(limit)[:40]!a}, expected a number of characters")
    return limit


def add_tokens(backend: BackendTokenizer, settings: TokenizerSettings) -> None:
    """Add the tokens that a directory names beside its vocabulary. Raises UserError where one gets another id."""
    for token, index in settings.added:
        backend.add_tokens([token])
        found = backend.token_to_id(token.content)
        if index is not None and found != index:
            raise UserError(
                f"{settings.source}: the added token {token.content[:60]!a} has the id {index}, but the vocabulary "
                f"gives it {found}; the two belong to different models"
            )


def with_added_as_words(content: str, roles: Collection[str]) -> str:
    """The content of `tokenizer.json` with no special tokens but those of a role: the others are no template's. Unigram
    has them among its pieces as well, which running text shall not find: there they get a name that no text holds."""
    state = json.loads(content)
    others = [token for token in state["added_tokens"] if token["special"] and token["content"] not in roles]
    for token in others:
        token["special"] = False
    if state["model"].get("type") == "Unigram":
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in roles]
        for piece in state["model"]["vocab"]:
            if piece[0] in roles:
                piece[0] = NONCHARACTER + piece[0]
        return json.dumps(state)
    return json.dumps(state) if others else content


def _class_of(directory: Path, path: Path, settings: Mapping[str, Any]) -> str:
    """The tokenizer's class without `Fast`; empty where none is named, and the model's is not known here. Raises
    UserError for a class that is not read."""
    named = settings.get("tokenizer_class")
    if named is None and (directory / "config.json").exists():
        path = directory / "config.json"
        named = _optional_json(path).get("tokenizer_class")
    if named is None:
        model_type = _optional_json(directory / "config.json").get("model_type")
        return "GPT2Tokenizer" if model_type == "gpt2" else ""
    bare = str(named).removesuffix("Fast")
    known = [name for classes in CLASSES.values() for name in classes]
    if bare not in (*known, *GENERIC_CLASSES):
        raise UserError(
            f"{path}: tokenizer_class {str(named)[:60]!r} cuts text otherwise than those that are read: "
            f"{', '.join(known)}, with and without Fast, and PreTrainedTokenizerFast"
        )
    return bare


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


def _role_texts(stated: Mapping[str, Any]) -> list[str]:
    """The tokens that are stated for a role."""
    return [stated[name] for name, *_ in STATED_NAMES.values() if isinstance(stated.get(name), str)]


def _special_texts(settings: Mapping[str, Any]) -> list[str]:
    """The contents of special tokens without a role, in the order in which `transformers` adds them."""
    roles = {name for name, *_ in STATED_NAMES.values()}
    values = [value for name, value in settings.items() if name.endswith("_token") and name not in roles]
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    values += extra.values() if isinstance(extra, dict) else extra if isinstance(extra, list) else []
    texts = [text for text in map(_content, values) if isinstance(text, str) and text and is_unicode(text)]
    return [text for text in dict.fromkeys(texts) if text not in SPECIAL_TOKENS]


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
