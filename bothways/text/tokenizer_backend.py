"""The tokenizer of Hugging Face `tokenizers` behind ours: made of a vocabulary, or read from a `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers import (
    Tokenizer as BackendTokenizer,
)

from bothways.errors import UserError
from bothways.text.special_tokens import USUAL_NAMES, damage_as_user_errors

TokenizerKind = Literal["wordpiece", "byte-bpe", "unigram"]
KINDS_IN_WORDS: dict[TokenizerKind, str] = {
    "wordpiece": "WordPiece",
    "byte-bpe": "byte-level BPE",
    "unigram": "Unigram",
}

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_WORD_CHARACTERS = 100  # a longer word is `[UNK]`, as in google-research/bert and `transformers`


def bert_normalizer(
    lowercase: bool, strip_accents: bool | None = None, handle_chinese_chars: bool = True
) -> normalizers.BertNormalizer:
    """BERT's normalisation (google-research/bert, tokenization.py). strip_accents: None strips them exactly where text
    is lower-cased."""
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=handle_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )


def bert_backend(
    pieces: Sequence[str], normalizer: normalizers.BertNormalizer, max_word_characters: int
) -> BackendTokenizer:
    """WordPiece over BERT's words, of a vocabulary in order of ids."""
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    model = models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=max_word_characters)
    tokenizer = BackendTokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    present = [token for token in SPECIAL_TOKENS if token in vocabulary]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in present])
    if CLS in vocabulary and SEP in vocabulary:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{CLS}:0 $A:0 {SEP}:0",
            pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
            special_tokens=[(CLS, vocabulary[CLS]), (SEP, vocabulary[SEP])],
        )
    return tokenizer


def byte_bpe_backend(model: models.BPE, template: str = "") -> BackendTokenizer:
    """Byte-level BPE as GPT-2 cuts words. template: `roberta` puts RoBERTa's special tokens around a text."""
    tokenizer = BackendTokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    vocabulary = tokenizer.get_vocab()
    present = {token for names in USUAL_NAMES.values() for token in names if token in vocabulary}
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=token == "<mask>")
            for token in sorted(present, key=vocabulary.__getitem__)
        ]
    )
    if template == "roberta":
        end, begin = ((token, vocabulary[token]) for token in ("</s>", "<s>"))
        tokenizer.post_processor = processors.RobertaProcessing(end, begin, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def read_backend(path: Path) -> BackendTokenizer:
    """The tokenizer of a `tokenizer.json`. Raises UserError for one of another kind than those of `kind_of`."""
    with damage_as_user_errors(f"{path}: cannot be read"):
        backend = BackendTokenizer.from_file(str(path))
    model = backend.model
    if isinstance(model, models.BPE) and not _is_byte_level(backend):
        raise UserError(f"{path}: BPE over characters, not over bytes; read are WordPiece, byte-level BPE and Unigram")
    if isinstance(model, models.WordLevel):
        raise UserError(f"{path}: a WordLevel tokenizer; read are WordPiece, byte-level BPE and Unigram")
    if isinstance(model, models.WordPiece) and model.continuing_subword_prefix != "##":
        raise UserError(f"{path}: continues words with {model.continuing_subword_prefix!a}; read is ##")
    return backend


def read_byte_bpe(path: Path, template: str) -> BackendTokenizer:
    """The tokenizer of a `vocab.json` with the `merges.txt` beside it; template: as of `byte_bpe_backend`."""
    merges = path.with_name("merges.txt")
    with damage_as_user_errors(f"{path}: cannot be read with {merges.name}"):
        return byte_bpe_backend(models.BPE.from_file(str(path), str(merges)), template)


def kind_of(backend: BackendTokenizer) -> TokenizerKind:
    """What its model is."""
    kinds: dict[type, TokenizerKind] = {models.BPE: "byte-bpe", models.Unigram: "unigram"}
    return kinds.get(type(backend.model), "wordpiece")


def _is_byte_level(backend: BackendTokenizer) -> bool:
    return "ByteLevel" in repr(backend.pre_tokenizer)


def continues_word(piece: str, kind: TokenizerKind) -> bool:
    """Whether a piece stands behind another of the same word, as far as the piece itself tells."""
    if kind == "wordpiece":
        return piece.startswith("##") and piece != "##"
    return not piece.startswith(("Ġ", "▁")) and piece[:1].isalnum()


def without_blanks(offsets: np.ndarray, text: str) -> np.ndarray:
    """Pieces' characters `[T, 2]` without the blanks that byte-level BPE and Unigram count to the word behind them; a
    piece of blanks alone has none."""
    for row in np.flatnonzero([text.startswith(" ", start, end) for start, end in offsets.tolist()]):
        start, end = offsets[row].tolist()
        offsets[row, 0] = end - len(text[start:end].lstrip(" "))
    return offsets


def read_pieces(path: Path) -> list[str]:
    """The pieces of a `vocab.txt`, in order of ids. Raises UserError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason} at byte {error.start + 1}") from error
