"""Tokenizers: train, load, save, encode, decode; Hugging Face `tokenizers` does the work.

WordPiece, which is BERT's: text is normalised (control characters out, lower case, accents off), split into words at
blanks, punctuation and Chinese characters, and each word is cut greedily into the longest pieces of the vocabulary,
continuations marked `##` (Devlin et al. 2018, section 3; Wu et al. 2016, section 4.1). Byte-level BPE (Radford et al.
2019, section 2.2; RoBERTa, GPT-2, ModernBERT) and Unigram (Kudo 2018; XLM-RoBERTa, ALBERT) are read as their
`tokenizer.json` has them. A saved directory opens in `transformers.AutoTokenizer` with the same ids.

Shapes: T pieces of a text, V vocabulary.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    Encoding,
    Regex,
    decoders,
    normalizers,
    pre_tokenizers,
)
from tokenizers import (
    Tokenizer as BackendTokenizer,
)

from bothways.errors import UserError
from bothways.files import write_json, write_text
from bothways.remote_files import local_folder
from bothways.text.places import offsets_with_marks, words_with_marks
from bothways.text.special_tokens import ABSENT, STATED_NAMES, USUAL_NAMES, Role, find_roles, find_template
from bothways.text.tokenizer_backend import (
    MAX_WORD_CHARACTERS,
    SPECIAL_TOKENS,
    bert_backend,
    bert_normalizer,
    continues_word,
    kind_of,
    without_blanks,
)
from bothways.text.tokenizer_settings import (
    add_tokens,
    check_vocabulary,
    read_settings,
    read_vocabulary,
    with_added_as_words,
)
from bothways.text.training import learn_byte_bpe, learn_wordpiece

# The limit of vocabularies learnt here: scripts without blanks (Thai, Khmer) have whole sentences in a word.
# The time of a character grows with its word: 77,000 characters/s in words of 90, 6,000 in words of 900.
MAX_LEARNT_WORD_CHARACTERS = 1000
FINGERPRINT_DIGITS = 16  # hexadecimal; 64 bits
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
# The Unicode blocks that BERT's normaliser puts blanks around (google-research/bert, tokenization.py).
_CHINESE = r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{20000}-\x{2CEAF}\x{2F800}-\x{2FA1F}]"
_WORDS = pre_tokenizers.Sequence(
    [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(_CHINESE), behavior="isolated")]
)


@dataclass(frozen=True)
class Pieces:
    """The pieces of a text, without `[CLS]` and `[SEP]`.

    input_ids: int64 `[T]`. offsets: int64 `[T, 2]`, start and end character of each piece in the text as it was given,
    the end behind the marks that belong to its last character, also where the normaliser took them away.
    word_ids: int64 `[T]`, the number of the word that each piece belongs to. `pieces[:5]` are the first five of them.
    """

    input_ids: np.ndarray
    offsets: np.ndarray
    word_ids: np.ndarray

    def __getitem__(self, window: slice) -> Pieces:
        return Pieces(self.input_ids[window], self.offsets[window], self.word_ids[window])


class Tokenizer:
    """A vocabulary with its normalisation, word splitting and special tokens.

    tokenizer: of Hugging Face. stated: the special tokens that a directory names (`cls_token`, …), and what else its
    tokenizer_config.json says, which is written again. kind: `wordpiece`, `byte-bpe` or `unigram`. vocab_size: V, the
    highest id and 1. cls_id, sep_id: of the tokens at the beginning and at the end; pad_id, unk_id, mask_id: `ABSENT`
    where the vocabulary has none. Raises UserError for a vocabulary without a role that its kind must have.
    """

    def __init__(self, tokenizer: BackendTokenizer, stated: Mapping[str, Any] | None = None) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self._stated = tokenizer, dict(stated or {})
        self.kind = kind_of(tokenizer)
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        roles = find_roles(vocabulary, self._stated)
        needed: tuple[Role, ...] = tuple(USUAL_NAMES) if self.kind == "wordpiece" else ("cls", "sep")
        missing = [USUAL_NAMES[role][0] for role in needed if role not in roles]
        if missing:
            raise UserError(
                f"the tokenizer lacks {', '.join(missing)}; a vocabulary has {', '.join(SPECIAL_TOKENS)}, or what its "
                "files name in their place"
            )
        self.roles = roles
        # The same tokenizer for running text, where a literal "[MASK]" is a word between two brackets. Tokens that were
        # added are tokens in both.
        self._plain = BackendTokenizer.from_str(with_added_as_words(tokenizer.to_str(), set(roles.values())))
        self._plain.encode_special_tokens = True
        self.vocab_size = max(vocabulary.values()) + 1
        ids = {role: vocabulary[token] for role, token in roles.items()}
        self.cls_id, self.sep_id = ids["cls"], ids["sep"]
        self.pad_id, self.unk_id, self.mask_id = (ids.get(role, ABSENT) for role in ("pad", "unk", "mask"))
        self._vocabulary = vocabulary
        self.template = find_template(tokenizer, self.cls_id, self.sep_id)

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {self.vocab_size:,} pieces, fingerprint {self.fingerprint})"

    @classmethod
    def train(
        cls,
        texts: Callable[[], Iterable[str]],
        vocab_size: int,
        lowercase: bool = True,
        min_frequency: int = 2,
        strip_accents: bool | None = None,
    ) -> Tokenizer:
        """Train a WordPiece vocabulary of `vocab_size` pieces; `texts()` is called twice, each time for the whole text.

        min_frequency: how often a word must occur to be a piece. strip_accents: None strips them exactly where text is
        lower-cased. Raises UserError when the characters alone overfill the vocabulary.
        """
        normalizer = bert_normalizer(lowercase, strip_accents)
        pieces = learn_wordpiece(texts, vocab_size, normalizer, min_frequency)
        return cls.from_pieces(pieces, lowercase, strip_accents, max_word_characters=MAX_LEARNT_WORD_CHARACTERS)

    @classmethod
    def train_byte_bpe(cls, texts: Callable[[], Iterable[str]], vocab_size: int, min_frequency: int = 2) -> Tokenizer:
        """As `train`, a byte-level BPE vocabulary with RoBERTa's special tokens; `texts()` is called once."""
        return cls(learn_byte_bpe(texts, vocab_size, min_frequency))

    @classmethod
    def from_pieces(
        cls,
        pieces: Sequence[str],
        lowercase: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        max_word_characters: int = MAX_WORD_CHARACTERS,
    ) -> Tokenizer:
        """The tokenizer of a vocabulary in order of ids, as in `vocab.txt`, with the options of BERT's normalisation.

        strip_accents: None strips them exactly where text is lower-cased. tokenize_chinese_chars: whether each Chinese
        character is a word. max_word_characters: a longer word is `[UNK]`.
        """
        normalizer = bert_normalizer(lowercase, strip_accents, tokenize_chinese_chars)
        return cls(bert_backend(pieces, normalizer, max_word_characters))

    @classmethod
    def load(cls, directory: str | Path) -> Tokenizer:
        """Open `tokenizer.json`, `vocab.txt`, or `vocab.json` with `merges.txt`, and what `tokenizer_settings` reads
        beside them.

        What `tokenizer_config.json` states of the normalisation holds, as in `transformers`; the rest is as in
        `tokenizer.json`. Raises UserError where neither vocabulary is there, or the tokenizer is not BERT's. Warns of a
        vocabulary whose case is not that of the normalised text.
        """
        directory = local_folder(directory, ("*.json", "*.txt"), ("*/*", "model.safetensors.*"))
        if not directory.is_dir():
            raise UserError(f"{directory}: no such tokenizer directory")
        settings = read_settings(directory)
        path, backend = read_vocabulary(directory, settings)
        add_tokens(backend, settings)
        try:
            tokenizer = cls(backend, settings.stated)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if tokenizer.kind == "wordpiece":
            check_vocabulary(path, tokenizer.pieces(), tokenizer.lowercase)
        return tokenizer

    @classmethod
    def from_json(cls, content: str) -> Tokenizer:
        """The tokenizer of `to_json`."""
        state = json.loads(content)
        return cls(BackendTokenizer.from_str(state["tokenizer"]), state["stated"])

    def to_json(self) -> str:
        """All of it as text, for another process."""
        return json.dumps({"tokenizer": self._tokenizer.to_str(), "stated": self._stated})

    def save(self, directory: str | Path, max_length: int = 512) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and, of a BERT vocabulary, `vocab.txt` into an existing
        directory.

        max_length: the tokens that the model reads at most, as `transformers` takes it from the settings.
        """
        directory = Path(directory)
        write_text(directory / "tokenizer.json", self._tokenizer.to_str(pretty=True))
        if self.kind != "wordpiece" or tuple(self.roles.values()) != SPECIAL_TOKENS:
            tokens = {STATED_NAMES[role][0]: token for role, token in self.roles.items()}
            stated = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens, **self._stated}
            write_json(directory / "tokenizer_config.json", {**stated, "model_max_length": max_length})
            return
        added = self._tokenizer.get_added_tokens_decoder()
        beyond = {index for index, token in added.items() if token.content not in SPECIAL_TOKENS}
        size = max(set(self._vocabulary.values()) - beyond) + 1  # added tokens are in the settings
        write_text(directory / "vocab.txt", "".join(f"{self.token(index)}\n" for index in range(size)))
        settings: dict[str, Any] = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": self._normalisation("strip_accents", None),
            "tokenize_chinese_chars": self._normalisation("handle_chinese_chars", True),
            "model_max_length": max_length,
            **(
                {}
                if self.max_word_characters == MAX_WORD_CHARACTERS
                else {"max_input_chars_per_word": self.max_word_characters}
            ),
            **{
                f"{name}_token": token
                for name, token in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True)
            },
        }
        if beyond:
            settings["added_tokens_decoder"] = {str(index): token.__getstate__() for index, token in added.items()}
        write_json(directory / "tokenizer_config.json", settings)

    @property
    def lowercase(self) -> bool:
        """Whether text is lower-cased before it is cut (accents are then stripped as well)."""
        return self.normalise("A") == "a"

    def lower_cased(self) -> Tokenizer:
        """The tokenizer that reads every text in lower case; accents stay, or go, as they do with this one."""
        if self.lowercase:
            return self
        backend = BackendTokenizer.from_str(self._tokenizer.to_str())
        if not isinstance(backend.normalizer, normalizers.BertNormalizer):
            rest = [backend.normalizer] if backend.normalizer else []
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
            return Tokenizer(backend, self._stated)
        accents, chinese = self._normalisation("strip_accents", None), self._normalisation("handle_chinese_chars", True)
        backend.normalizer = bert_normalizer(True, bool(accents), chinese)
        return Tokenizer(backend, self._stated)

    @property
    def max_word_characters(self) -> int:
        """The characters of a word, at most; a longer word is `[UNK]`."""
        return int(self._tokenizer.model.max_input_chars_per_word)

    def _normalisation(self, option: str, default: Any) -> Any:
        return getattr(self._tokenizer.normalizer, option, default)

    @property
    def fingerprint(self) -> str:
        """`FINGERPRINT_DIGITS` of a hash: of WordPiece over the vocabulary, its normalisation, and its limit where that
        is not BERT's; of others over all of `tokenizer.json`."""
        if self.kind != "wordpiece":
            return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()[:FINGERPRINT_DIGITS]
        normalisation = [
            self.lowercase,
            self._normalisation("strip_accents", None),
            self._normalisation("handle_chinese_chars", True),
        ]
        content: list[Any] = [[self.token(index) for index in range(self.vocab_size)], normalisation]
        if self.max_word_characters != MAX_WORD_CHARACTERS:
            content.append(self.max_word_characters)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:FINGERPRINT_DIGITS]

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of the special tokens that there are: pad, unk, cls, sep, mask."""
        ids = self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id
        return tuple(id for id in dict.fromkeys(ids) if id != ABSENT)

    @property
    def suppressed_ids(self) -> list[int]:
        """Ids that a generated text never has: the special tokens but the one that ends it."""
        return [id for id in self.special_ids if id != self.sep_id]

    def with_special_tokens(self, segments: Sequence[Pieces]) -> tuple[Pieces, np.ndarray]:
        """One sequence of some segments in the vocabulary's template; BERT's is `[CLS] a [SEP] b [SEP]`.

        Returns the pieces of the whole sequence `[T]`, special tokens with an empty range of characters and the word
        -1, and the number of each token's segment, int64 `[T]`: what is in front with the first, each `[SEP]` with the
        segment that it ends. Offsets and word numbers stay those of the segments' own texts.
        """
        template, last = self.template, len(segments) - 1
        parts = [_special_pieces(template.prefix)]
        lengths = []
        for number, segment in enumerate(segments):
            end = template.suffix if number == last else template.middle
            parts += [segment, _special_pieces(end)]
            lengths.append(len(segment.input_ids) + len(end))
        pieces = Pieces(
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.word_ids for part in parts]),
        )
        lengths[0] += len(template.prefix)
        return pieces, np.repeat(np.arange(len(segments)), lengths)

    def token_type_ids(self, segment_ids: np.ndarray) -> np.ndarray:
        """What a model of this vocabulary reads as the types of tokens with these segments, int64 `[T]`: the segments'
        numbers, as of BERT, or all 0."""
        return segment_ids if self.template.typed else np.zeros_like(segment_ids)

    def num_special_tokens(self, num_segments: int) -> int:
        """Tokens that `with_special_tokens` adds to a sequence of so many segments."""
        template = self.template
        return len(template.prefix) + (num_segments - 1) * len(template.middle) + len(template.suffix)

    def continuations(self) -> np.ndarray:
        """Boolean `[V]`: True for pieces that continue a word: `##ing`; of byte-level BPE and Unigram those that begin
        with a letter or a digit and without the mark of a blank, `Ġ` or `▁`."""
        mask = np.zeros(self.vocab_size, dtype=bool)
        special = set(self.special_ids)
        continues = [index for piece, index in self._vocabulary.items() if continues_word(piece, self.kind)]
        mask[[index for index in continues if index not in special]] = True
        return mask

    def token(self, index: int) -> str:
        """The piece with an id; ids without a piece, as a padded embedding table has, are `[unusedN]`."""
        return self._tokenizer.id_to_token(index) or f"[unused{index}]"

    def shown(self, index: int) -> str:
        """The piece with an id as people read it within a word: without the mark of a continuation or of a blank."""
        if self.kind == "byte-bpe" and index not in self.special_ids:
            return self._tokenizer.decode([index], skip_special_tokens=False).removeprefix(" ")
        return self.token(index).removeprefix("##" if self.kind == "wordpiece" else "▁")

    def pieces(self) -> list[str]:
        """Every piece, in order of ids."""
        return sorted(self._vocabulary, key=self._vocabulary.__getitem__)

    def id(self, token: str) -> int | None:
        """The id of a piece, or None."""
        return self._vocabulary.get(token)

    def normalise(self, text: str) -> str:
        """The text as it is cut into words: controls out and, as the vocabulary has it, lower case, marks off."""
        return str(self._tokenizer.normalizer.normalize_str(text)) if self._tokenizer.normalizer else text

    def encode(self, text: str, special_tokens: bool = True) -> Pieces:
        """Cut a text into pieces. With `special_tokens` a literal `[MASK]` is the mask token, else plain characters."""
        return self.encode_batch([text], special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], special_tokens: bool = True) -> list[Pieces]:
        """Cut many texts as `encode` does, on all cores."""
        tokenizer = self._tokenizer if special_tokens else self._plain
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [_pieces(encoding, text) for encoding, text in zip(encodings, texts, strict=True)]

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many running texts and nothing else: literal special tokens in them are plain characters."""
        encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @staticmethod
    def words(text: str) -> list[tuple[int, int]]:
        """Start and end character of each word. Words are separated by blanks; a punctuation mark or a Chinese
        character is a word of its own. Marks belong to the character before them."""
        return words_with_marks([span for _, span in _WORDS.pre_tokenize_str(text)], text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens included."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def text_pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text that each token adds behind others, with its blank; joined they are the text. Of tokens that share a
        character, as those of byte-level BPE may, the last one adds it."""
        if self.kind == "wordpiece":
            for id in ids:  # a first token has no blank before it, so each is read behind another
                yield self.decode([self.sep_id, id]).removeprefix(self.token(self.sep_id))
            return
        stream, begun = decoders.DecodeStream(skip_special_tokens=False), ""
        for id in itertools.chain((self.sep_id,), ids):  # each as it comes
            added = stream.step(self._tokenizer, id)
            if begun:
                yield added or ""
            begun = begun or "begun"


def _special_pieces(ids: Sequence[int]) -> Pieces:
    number = len(ids)
    return Pieces(np.array(ids, dtype=np.int64), np.zeros((number, 2), dtype=np.int64), np.full(number, -1))


def _pieces(encoding: Encoding, text: str) -> Pieces:
    words = [-1 if word is None else word for word in encoding.word_ids]
    offsets = without_blanks(np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2), text)
    ids = np.array(encoding.ids, dtype=np.int64)
    return Pieces(ids, offsets_with_marks(offsets, text), np.array(words, dtype=np.int64))
