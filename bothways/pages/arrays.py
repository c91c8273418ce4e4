"""Arrays of a page: numbers as sixteen-bit levels, deflated, in base64; a browser decompresses an array when it is
looked at (static/arrays.js)."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

MAX_LEVEL = (1 << 16) - 1  # a level is a uint16
ARRAY_TOLERANCE = 1e-3  # by which a number on a page may differ from the model's: pages show three decimals


def compress_array(values: Any, step: float = 0.0) -> dict[str, Any]:
    """An array of any shape becomes `{shape, offset, step, data}`: number = offset + step × level.

    step: the least step, by default the finest that 65,536 levels allow; up to 2 × `ARRAY_TOLERANCE`, a coarser one
    takes less room. Numbers of a range beyond 131 differ from the model's by more than `ARRAY_TOLERANCE`, in
    proportion.
    """
    array = np.asarray(values, dtype=np.float64)
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    step = max(step, (high - low) / MAX_LEVEL) or 1.0
    return _compressed(np.rint((array - low) / step), low, step)


def compress_shares(values: Any) -> dict[str, Any]:
    """Shares, rows of which sum to one, are compressed in steps of `ARRAY_TOLERANCE`, which take a fraction of the room
    that `compress_array` needs. What rounding takes from a number the next ones in its row get, so that rows still sum
    to one; each number is within `ARRAY_TOLERANCE` of the model's."""
    running = np.rint(np.cumsum(np.asarray(values, dtype=np.float64), -1) / ARRAY_TOLERANCE)
    return _compressed(np.diff(running, axis=-1, prepend=0), 0.0, ARRAY_TOLERANCE)


def _compressed(levels: np.ndarray, offset: float, step: float) -> dict[str, Any]:
    """The levels become uint16, all low bytes first and then all high bytes, which deflates better."""
    flat = levels.astype(np.uint16).ravel()
    planes = np.concatenate([flat & 0xFF, flat >> 8]).astype(np.uint8)
    data = base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()
    return {"shape": list(levels.shape), "offset": offset, "step": step, "data": data}


def decompress_array(compressed: dict[str, Any]) -> np.ndarray:
    """The array of what `compress_array` or `compress_shares` made, float64."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(compressed["data"])), dtype=np.uint8)
    low, high = planes.reshape(2, -1).astype(np.uint16)
    levels = (low | (high << 8)).astype(np.float64)
    return (compressed["offset"] + compressed["step"] * levels).reshape(compressed["shape"])
