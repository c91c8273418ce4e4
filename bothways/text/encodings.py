"""Bytes in any encoding → bytes in UTF-8: what a file says of itself, what the user says of it, what it looks like."""

from __future__ import annotations

import codecs
import encodings.aliases
import io
import re
from typing import IO, Any

from bothways.errors import UserError, closest, option

UTF8 = "utf-8"
BLOCK_BYTES = 1 << 17  # read at a time
BINARY_SAMPLE_BYTES = 8192  # git and grep look at as much for the NUL byte that tells a binary file
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings of bytes below 0x80 alone: a file of them cannot be told from UTF-8.
_SEVEN_BIT = ("iso2022", "hz", "utf_7")
# What text in an encoding is full of, once decoded, and how much of what is not ASCII must be that. Letters of Western
# languages stand alone among ASCII ones, those of others side by side; of Chinese the ten commonest are 13 %.
_QUOTES = "€£§°«»“”„’‘–—…\xa0©®½"  # and other signs, which may stand beside a letter: Zoë’s
_LIKELY = (
    ("cp1252", rf"(?<![^\x00-\x7f{_QUOTES}])[äöüßÄÖÜéèêëàâçîïôûùñáíóúãõåæøÅÆØ{_QUOTES}](?![^\x00-\x7f{_QUOTES}])", 0.7),
    ("cp1251", r"[а-яё]{2,}", 0.6),
    ("koi8-r", r"[а-яё]{2,}", 0.6),
    ("shift_jis", r"[ぁ-んァ-ン、。]", 0.3),
    ("euc_jp", r"[ぁ-んァ-ン、。]", 0.3),
    ("gb18030", r"[的一是不了在人有我，。]", 0.04),
    ("big5", r"[的一是不了在人有我，。]", 0.04),
    ("euc_kr", r"[가-힣]{2,}", 0.6),
)
_NAMES = {"cp1252": "Windows-1252", "cp1251": "Windows-1251"}
_UNDECODABLE = "\udcff"  # stands for bytes that are not of the encoding; written as 0xff, which no UTF-8 has
codecs.register_error("bothways.undecodable", lambda error: (_UNDECODABLE, error.end))  # type: ignore[attr-defined]


def checked_encoding(name: str) -> str:
    """The name, if Python knows the encoding and a file in it can be told from UTF-8. Raises UserError otherwise."""
    if not _is_of_text(name):
        aliases = {*encodings.aliases.aliases, *encodings.aliases.aliases.values(), "utf_8"}
        names = sorted(alias.replace("_", "-") for alias in aliases if _is_of_text(alias))
        near = closest(str(name).lower().replace("_", "-"), names) or "; cp1252, latin-1 or gb18030, say"
        raise UserError(f"{option('encoding', ascii(name)[1:-1])}: no encoding of text{near}")
    known = codecs.lookup(name).name
    if known.replace("-", "_").startswith(_SEVEN_BIT):
        raise UserError(
            f"{option('encoding', name)}: cannot be told from UTF-8; convert it: iconv -f {name} -t UTF-8 FILE"
        )
    return name


def _is_of_text(name: str) -> bool:
    try:
        b"\0\0\0\0".decode(name, "replace")  # four, as UTF-32 needs them; of no bytes Python looks up nothing
    except (LookupError, UnicodeError, ValueError, TypeError):
        return False
    return True


def is_utf8(name: str) -> bool:
    """Whether this is a name of UTF-8."""
    return codecs.lookup(name).name in (UTF8, "utf-8-sig", "ascii")


def marked_encoding(sample: bytes) -> str:
    """The encoding, other than UTF-8, of which a file has the byte order mark; empty where it has none."""
    return next((name for mark, name in _MARKS if sample.startswith(mark)), "")


def likely_encoding(sample: bytes) -> str:
    """The encoding that these bytes, which are not UTF-8, look like; empty where none is likely."""
    if b"\0" in sample:
        places = [sample[start::2].count(0) for start in (0, 1)]
        if max(places) < 4 or max(places) * 4 < len(sample) or min(places) * 8 > max(places):
            return ""
        return "utf-16-le" if places[1] > places[0] else "utf-16-be"
    for name, pattern, least in _LIKELY:
        try:  # the sample may end within a character
            text = codecs.getincrementaldecoder(name)().decode(sample)
        except UnicodeDecodeError:
            continue
        foreign = sum(character > "\x7f" for character in text)
        if foreign and sum(len(found) for found in re.findall(pattern, text)) >= least * foreign:
            return name
    return ""


def encoding_hint(sample: bytes) -> str:
    """`; it looks like Windows-1252, encoding='cp1252' reads it`, or how to say what it is where that is not known."""
    name = likely_encoding(sample)
    return (
        f"; it looks like {_NAMES.get(name, name)}, {option('encoding', name)} reads it"
        if name
        else f"; {option('encoding')} says what it is: cp1252, latin-1 or gb18030, say"
    )


def is_all_utf8(stream: IO[bytes]) -> bool:
    """Whether a stream, which is read to its end, is UTF-8 and has no NUL byte in its first kilobytes."""
    decoder = codecs.getincrementaldecoder(UTF8)()
    block = stream.read(BINARY_SAMPLE_BYTES)
    if b"\0" in block:
        return False
    try:
        while block:
            decoder.decode(block)
            block = stream.read(BLOCK_BYTES)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def decoded(content: bytes, encoding: str = UTF8) -> tuple[str, str]:
    """All of a text in memory, and the encoding it was read in, by the rules of files. Raises UnicodeDecodeError."""
    name = marked_encoding(content)
    if not name:
        name = UTF8 if is_utf8(encoding) or is_all_utf8(io.BytesIO(content)) else encoding
    return content.decode(name), name


def undecodable_message(source: str, error: UnicodeDecodeError) -> str:
    """What to say of a text in memory that is not of the encoding it was read in. source: how it is called."""
    line = error.object.count(b"\n", 0, error.start) + 1
    place = f"{source}:{line}: byte 0x{error.object[error.start]:02x}"
    if not is_utf8(error.encoding):
        return f"{place} is not {error.encoding}"
    begin = max(0, error.object.rfind(b"\n", 0, error.start))
    return f"{place} is not UTF-8{encoding_hint(error.object[begin : begin + BINARY_SAMPLE_BYTES])}"


class DecodedBytes(io.BufferedReader):
    """A stream in an encoding as UTF-8; what is not of the encoding becomes invalid UTF-8.

    encoding: of the stream. Closing it closes the stream.
    """

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        super().__init__(_Transcoded(stream, encoding), BLOCK_BYTES)
        self.encoding = encoding


class _Transcoded(io.RawIOBase):
    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream, self._held = stream, b""
        self._decoder = codecs.getincrementaldecoder(encoding)("bothways.undecodable")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            block = self._stream.read(BLOCK_BYTES)
            self._held = self._decoder.decode(block, not block).encode(UTF8, "surrogateescape")
            if not block and not self._held:
                return 0
        part, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
