"""Mutations of bytes and of JSON values: what editors, spreadsheets, transfers and hostile people do to files."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

SNIPPETS = [
    b"\0",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",  # a byte order mark
    b"\xff\xfe",  # that of UTF-16
    b"\xe9",  # Latin-1
    b"\xed\xa0\x80",  # half a surrogate pair
    b"\xf0\x9f\x99\x82",
    b"\x1a",
    b'"',
    b'""',
    b"'",
    b",",
    b";",
    b"\t",
    b"#",
    b"# a\tb",
    b"[",
    b"]" * 3,
    b"{" * 2000,
    b"\\ud800",
    b"\\u0000",
    b"NaN",
    b"null",
    b"1e999",
    b"-1",
    b"9" * 30,
    "\u2028".encode(),
    "\u0301".encode(),
    "\u200b".encode(),
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2.5, 10**21, -(10**21), 1 << 40, float("nan"), float("inf"), "", "0", "x", "\0",
    "\ud800", [], {}, [[]], [None], {"": None}, ["x", 1], "../../x", "a" * 5000,
]  # fmt: skip


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """The data with one to four changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change_bytes(changed, rng)
    return bytes(changed)


def _change_bytes(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 8, 64)))
    kind = rng.randrange(7)
    if kind == 0:
        data[at:at] = rng.choice(SNIPPETS)
    elif kind == 1:
        data[at:end] = rng.choice(SNIPPETS)
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = data[at:end]
    elif kind == 4:
        del data[at:]
    elif kind == 5 and at < len(data):
        data[at] = rng.randrange(256)
    else:
        other = rng.randrange(len(data) + 1)
        data[other:other] = data[at:end]


def mutated_json(text: str, rng: random.Random) -> bytes:
    """JSON with one or two values, keys or entries changed, still JSON (as Python writes it)."""
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 2))):
        value = changed_value(value, rng)
    return json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")


def changed_value(value: Any, rng: random.Random) -> Any:
    """The value, or what takes its place, with one entry changed, gone, renamed, doubled or exchanged."""
    places = list(_places(value))
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(VALUES))
    container, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[rng.choice(("", "x", str(key) + "s"))] = container.pop(key)
    elif kind == 2 and isinstance(container, list):
        container.append(copy.deepcopy(container[key]))
    elif kind == 3:
        other, place = rng.choice(places)
        container[key] = copy.deepcopy(other[place])
    else:
        container[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def _places(value: Any, depth: int = 0) -> Any:
    """Every container with each of its keys; of long lists the first entries."""
    if depth > 6:
        return
    keys = (
        list(value)[:40] if isinstance(value, dict) else range(min(len(value), 10)) if isinstance(value, list) else []
    )
    for key in keys:
        yield value, key
        yield from _places(value[key], depth + 1)
