"""API keys: several, named, compared in constant time, never logged."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from bothways.errors import UserError, option
from bothways.serve.failures import RequestError

ENVIRONMENT = "BOTHWAYS_API_KEYS"  # `name:key`, several with commas
MIN_KEY = 16  # characters; shorter ones can be guessed


class Keys:
    """The keys that are accepted, by name; without any every request is. Of a key only its hash is kept."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._hashes = {name: _hashed(key) for name, key in keys.items()}

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def check(self, headers: Mapping[str, str]) -> str | None:
        """The name of the key that a request has: `Authorization: Bearer KEY`, or `x-api-key`.

        Raises RequestError where a key is needed and none of ours is given.
        """
        if not self._hashes:
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = _hashed(bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        found = None
        for name, known in self._hashes.items():  # all of them, so that time does not tell which was near
            if hmac.compare_digest(known, given):
                found = name
        if found is None:
            said = "an API key is needed: Authorization: Bearer KEY"
            raise RequestError("unauthorized", said, headers={"www-authenticate": "Bearer"})
        return found


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(path: str | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of a file, a line `name:key` each, or of BOTHWAYS_API_KEYS; none where neither is given.

    Raises UserError for a file that is missing, empty or readable by others than its owner, and for keys that are
    short or share a name.
    """
    if path is not None:
        lines, source = _file_lines(Path(path)), f"{option('api_keys', path)}"
    elif ENVIRONMENT in environment:
        lines, source = environment[ENVIRONMENT].split(","), ENVIRONMENT
    else:
        return Keys({})
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, key = (part.strip() for part in line.partition(":"))
        if not colon or not name or len(key) < MIN_KEY:
            raise UserError(f"{source}: entry {number}: expected name:key, the key of {MIN_KEY} characters or more")
        if name in keys:
            raise UserError(f"{source}: entry {number}: the name {name!r} is there twice")
        keys[name] = key
    if not keys:
        raise UserError(f"{source}: no key in it; give lines name:key, or leave it out to serve without keys")
    return Keys(keys)


def _file_lines(path: Path) -> list[str]:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UserError(f"{option('api_keys', path)}: {reason}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        others = "by everybody" if mode & stat.S_IRWXO else "by its group"
        raise UserError(f"{option('api_keys', path)}: can be read {others}; chmod 600 {path}")
    return text.splitlines()
