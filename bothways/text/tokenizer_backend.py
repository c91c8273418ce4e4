"""The tokenizer of Hugging Face `tokenizers` behind ours: WordPiece over BERT's words, made of a vocabulary or read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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


def read_backend(path: Path) -> BackendTokenizer:
    """The tokenizer of a `tokenizer.json`. Raises UserError for one that is not BERT's WordPiece."""
    try:
        backend = BackendTokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    model = backend.model
    if not isinstance(model, models.WordPiece):
        raise UserError(f"{path}: a {type(model).__name__} tokenizer, not WordPiece")
    if (model.continuing_subword_prefix, model.unk_token) != ("##", UNK):
        raise UserError(
            f"{path}: continues words with {model.continuing_subword_prefix!a} and has {model.unk_token!a} for what is "
            f"unknown; read are ## and {UNK}"
        )
    return backend


def read_pieces(path: Path) -> list[str]:
    """The pieces of a `vocab.txt`, in order of ids. Raises UserError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason} at byte {error.start + 1}") from error
