"""WordPiece tokenizers: train, load, save, encode, decode; Hugging Face `tokenizers` does the work.

Text is normalised (control characters out, lower case, accents off), split into words at blanks, punctuation and
Chinese characters, and each word is cut greedily into the longest pieces of the vocabulary, continuations marked `##`
(Devlin et al. 2018, section 3; Wu et al. 2016, section 4.1). A saved directory opens in `transformers.AutoTokenizer`
with the same ids.

Shapes: T pieces of a text, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    Encoding,
    Regex,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers import (
    Tokenizer as BackendTokenizer,
)

from bothways.errors import UserError, option
from bothways.files import write_json, write_text
from bothways.text.places import offsets_with_marks, words_with_marks
from bothways.text.tokenizer_backend import (
    MAX_WORD_CHARACTERS,
    SPECIAL_TOKENS,
    UNK,
    bert_backend,
    bert_normalizer,
    read_backend,
    read_pieces,
)
from bothways.text.tokenizer_settings import add_tokens, check_vocabulary, read_settings, with_added_as_words

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
    """A vocabulary with BERT's normalisation and word splitting.

    tokenizer: of Hugging Face, with a WordPiece model. vocab_size: V, the highest id and 1. Raises UserError for a
    vocabulary without one of `SPECIAL_TOKENS`.
    """

    def __init__(self, tokenizer: BackendTokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        # The same tokenizer for running text, where a literal "[MASK]" is a word between two brackets. Tokens that were
        # added are tokens in both.
        self._plain = BackendTokenizer.from_str(with_added_as_words(tokenizer.to_str()))
        self._plain.encode_special_tokens = True
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise UserError(
                f"the tokenizer lacks {', '.join(missing)}; a BERT vocabulary has {', '.join(SPECIAL_TOKENS)}"
            )
        self.vocab_size = max(vocabulary.values()) + 1
        special_ids = [vocabulary[token] for token in SPECIAL_TOKENS]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = special_ids
        self._vocabulary = vocabulary
        self._cls, self._sep = _special_piece(self.cls_id), _special_piece(self.sep_id)

    @classmethod
    def train(
        cls,
        texts: Callable[[], Iterable[str]],
        vocab_size: int,
        lowercase: bool = True,
        min_frequency: int = 2,
        strip_accents: bool | None = None,
    ) -> Tokenizer:
        """Train a vocabulary of `vocab_size` pieces; `texts()` is called twice, each time for the whole text.

        The first pass collects the characters, so that each has a piece and the result does not depend on the order
        of a hash table: the trainer numbers continuation characters as it meets them, and numbers break its ties.
        min_frequency: how often a word must occur to be a piece. strip_accents: None strips them exactly where text is
        lower-cased. Raises UserError when the characters alone overfill the vocabulary.
        """
        normalizer = bert_normalizer(lowercase, strip_accents)
        alphabet = _alphabet(texts(), normalizer)
        continuations = [f"##{character}" for character in alphabet if not _is_always_a_word(character, normalizer)]
        first = [*SPECIAL_TOKENS, *alphabet, *continuations]
        if len(first) >= vocab_size:
            raise UserError(
                f"{option('vocab_size', vocab_size)} is too small: the text has {len(alphabet)} different characters, "
                f"which need {len(first)} pieces before the first word"
            )
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            show_progress=False,
            special_tokens=[*SPECIAL_TOKENS, *continuations],
            initial_alphabet=alphabet,
        )
        backend = BackendTokenizer(models.WordPiece(unk_token=UNK))
        backend.normalizer = normalizer
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.train_from_iterator(texts(), trainer)
        trained = backend.get_vocab()
        rest = trained.keys() - {*first}
        pieces = first + sorted(rest, key=trained.__getitem__)
        return cls.from_pieces(pieces, lowercase, strip_accents, max_word_characters=MAX_LEARNT_WORD_CHARACTERS)

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
        """Open `tokenizer.json`, or `vocab.txt`, with what `tokenizer_settings` reads beside them.

        What `tokenizer_config.json` states of the normalisation holds, as in `transformers`; the rest is as in
        `tokenizer.json`. Raises UserError where neither vocabulary is there, or the tokenizer is not BERT's. Warns of a
        vocabulary whose case is not that of the normalised text.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(f"{directory}: no such tokenizer directory")
        settings = read_settings(directory)
        path = directory / "tokenizer.json"
        if path.exists():
            backend = read_backend(path)
            if not settings.generic and isinstance(backend.normalizer, normalizers.BertNormalizer):
                for option, value in settings.normalisation.items():
                    setattr(backend.normalizer, option, value)
        else:
            path = directory / "vocab.txt"
            if not path.exists():
                raise UserError(
                    f"{directory}: not a tokenizer directory: tokenizer.json and vocab.txt are both missing"
                )
            pieces = read_pieces(path)
            normalizer = bert_normalizer(**{"lowercase": True, **settings.normalisation})
            backend = bert_backend(pieces, normalizer, settings.max_word_characters)
        add_tokens(backend, settings)
        try:
            tokenizer = cls(backend)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        check_vocabulary(path, tokenizer.pieces(), tokenizer.lowercase)
        return tokenizer

    @classmethod
    def from_json(cls, content: str) -> Tokenizer:
        """The tokenizer of `to_json`."""
        return cls(BackendTokenizer.from_str(content))

    def to_json(self) -> str:
        """The content of `tokenizer.json`."""
        return self._tokenizer.to_str()

    def save(self, directory: str | Path, max_length: int = 512) -> None:
        """Write `tokenizer.json`, `vocab.txt` and `tokenizer_config.json` into an existing directory.

        max_length: the tokens that the model reads at most, as `transformers` takes it from the settings.
        """
        directory = Path(directory)
        write_text(directory / "tokenizer.json", self._tokenizer.to_str(pretty=True))
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
        return bool(self._normalisation("lowercase", False))

    def lower_cased(self) -> Tokenizer:
        """The tokenizer that reads every text in lower case; accents stay, or go, as they do with this one."""
        if self.lowercase:
            return self
        backend = BackendTokenizer.from_str(self.to_json())
        accents, chinese = self._normalisation("strip_accents", None), self._normalisation("handle_chinese_chars", True)
        backend.normalizer = bert_normalizer(True, bool(accents), chinese)
        return Tokenizer(backend)

    @property
    def max_word_characters(self) -> int:
        """The characters of a word, at most; a longer word is `[UNK]`."""
        return int(self._tokenizer.model.max_input_chars_per_word)

    def _normalisation(self, option: str, default: Any) -> Any:
        return getattr(self._tokenizer.normalizer, option, default)

    @property
    def fingerprint(self) -> str:
        """`FINGERPRINT_DIGITS` of a hash over the vocabulary, its normalisation, and its limit where that is not
        BERT's."""
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
        """The ids of `SPECIAL_TOKENS`, in their order."""
        return self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id

    @property
    def suppressed_ids(self) -> list[int]:
        """Ids that a generated text never has: the special tokens but `[SEP]`, which ends it."""
        return [id for id in self.special_ids if id != self.sep_id]

    def with_special_tokens(self, segments: Sequence[Pieces]) -> tuple[Pieces, np.ndarray]:
        """One sequence of some segments in BERT's template, `[CLS] a [SEP] b [SEP]`, and its token_type_ids.

        Returns the pieces of the whole sequence `[T]`, special tokens with an empty range of characters and the word
        -1, and token_type_ids int64 `[T]`: the number of the segment, `[CLS]` with the first, each `[SEP]` with the
        segment that it ends. Offsets and word numbers stay those of the segments' own texts.
        """
        parts = [self._cls]
        for segment in segments:
            parts += [segment, self._sep]
        pieces = Pieces(
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.word_ids for part in parts]),
        )
        lengths = [len(segment.input_ids) + 1 for segment in segments]
        lengths[0] += 1  # [CLS]
        return pieces, np.repeat(np.arange(len(segments)), lengths)

    def num_special_tokens(self, num_segments: int) -> int:
        """Tokens that `with_special_tokens` adds to a sequence of so many segments."""
        return 1 + num_segments

    def continuations(self) -> np.ndarray:
        """Boolean `[V]`: True for pieces that continue a word (`##ing`)."""
        mask = np.zeros(self.vocab_size, dtype=bool)
        mask[[index for piece, index in self._vocabulary.items() if piece.startswith("##") and piece != "##"]] = True
        return mask

    def token(self, index: int) -> str:
        """The piece with an id; ids without a piece, as a padded embedding table has, are `[unusedN]`."""
        return self._tokenizer.id_to_token(index) or f"[unused{index}]"

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


def _special_piece(id: int) -> Pieces:
    return Pieces(np.array([id]), np.zeros((1, 2), dtype=np.int64), np.array([-1]))


def _pieces(encoding: Encoding, text: str) -> Pieces:
    words = [-1 if word is None else word for word in encoding.word_ids]
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    ids = np.array(encoding.ids, dtype=np.int64)
    return Pieces(ids, offsets_with_marks(offsets, text), np.array(words, dtype=np.int64))


def _alphabet(texts: Iterable[str], normalizer: normalizers.BertNormalizer) -> list[str]:
    """The different characters of the normalised texts, without the blank, sorted."""
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    # Normalising the set equals normalising the texts: BERT's normaliser works a character at a time.
    return sorted(set(normalizer.normalize_str(" ".join(sorted(characters)))) - {" "})


def _is_always_a_word(character: str, normalizer: normalizers.BertNormalizer) -> bool:
    """True for punctuation, ASCII symbols and Chinese characters: BERT's splitting makes each a word of its own.

    The splitting itself is asked: its tables of Unicode are of another year than Python's.
    """
    return len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(f"a{character}a"))) == 3
