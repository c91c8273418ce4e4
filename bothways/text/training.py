"""Vocabularies learnt from text, the same on every run and machine: WordPiece and byte-level BPE."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenizers import Tokenizer as BackendTokenizer
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bothways.errors import UserError, option
from bothways.text.tokenizer_backend import SPECIAL_TOKENS, UNK, byte_bpe_backend

# Names of RoBERTa's special tokens, in the order of its ids.
BYTE_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def learn_wordpiece(
    texts: Callable[[], Iterable[str]], vocab_size: int, normalizer: normalizers.BertNormalizer, min_frequency: int
) -> list[str]:
    """The pieces of a WordPiece vocabulary in order of ids; `texts()` is called twice, each time for the whole text.

    The first pass collects the characters, so that each has a piece and the result does not depend on the order of a
    hash table: the trainer numbers continuation characters as it meets them, and numbers break its ties.
    Raises UserError when the characters alone overfill the vocabulary.
    """
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
    return first + sorted(rest, key=trained.__getitem__)


def learn_byte_bpe(texts: Callable[[], Iterable[str]], vocab_size: int, min_frequency: int) -> BackendTokenizer:
    """A byte-level BPE vocabulary with RoBERTa's special tokens and template. No text has an unknown piece, as each of
    the 256 bytes is one. Raises UserError when bytes and special tokens alone overfill the vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(BYTE_SPECIAL_TOKENS)
    if vocab_size <= least:
        asked = option("vocab_size", vocab_size)
        raise UserError(f"{asked} is too small: bytes and special tokens alone are {least} pieces")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        show_progress=False,
        special_tokens=list(BYTE_SPECIAL_TOKENS),
        initial_alphabet=alphabet,
    )
    backend = byte_bpe_backend(models.BPE())
    backend.train_from_iterator(texts(), trainer)
    return byte_bpe_backend(backend.model, "roberta")


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
