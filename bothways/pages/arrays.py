"""Arrays of a page: numbers as sixteen-bit steps, deflated, in base64; a browser unpacks them when they are looked
at."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

LEVELS = (1 << 16) - 1
TOLERANCE = 1e-3  # how far a number on a page may be from the model's


def compress_array(values: Any, step: float = 0.0) -> dict[str, Any]:
    """An array of any shape as `{shape, offset, step, data}`: number = offset + step × level, the step as fine as
    65,536 levels allow, or coarser to take less room (up to 2 × `TOLERANCE`). Numbers of a range beyond 131 are further
    from the model's than `TOLERANCE`, in proportion."""
    array = np.asarray(values, dtype=np.float64)
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    step = max(step, (high - low) / LEVELS) or 1.0
    return _compressed(np.rint((array - low) / step), low, step)


def compress_shares(values: Any) -> dict[str, Any]:
    """As `compress_array` for many numbers, in steps of `TOLERANCE`, which take a fraction of the room: for shares,
    rows of which sum to one. What rounding takes from a number the next ones in its row get, so that rows still sum
    to one; each is within `TOLERANCE` of the model's."""
    running = np.rint(np.cumsum(np.asarray(values, dtype=np.float64), -1) / TOLERANCE)
    return _compressed(np.diff(running, axis=-1, prepend=0), 0.0, TOLERANCE)


def _compressed(levels: np.ndarray, offset: float, step: float) -> dict[str, Any]:
    """Levels as uint16, all low bytes first and then all high bytes, which deflates better."""
    flat = levels.astype(np.uint16).ravel()
    planes = np.concatenate([flat & 0xFF, flat >> 8]).astype(np.uint8)
    data = base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()
    return {"shape": list(levels.shape), "offset": offset, "step": step, "data": data}


def decompress_array(one: dict[str, Any]) -> np.ndarray:
    """The array of what `compress_array` made."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(one["data"])), dtype=np.uint8)
    low, high = planes.reshape(2, -1).astype(np.uint16)
    levels = (low | (high << 8)).astype(np.float64)
    return (one["offset"] + one["step"] * levels).reshape(one["shape"])
