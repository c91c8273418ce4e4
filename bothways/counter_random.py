"""Random numbers by key: each is a hash of (seed, epoch, …, counter), so that any of them can be made alone.

A number does not depend on how many were drawn before it, nor on the process that draws it.
"""

from __future__ import annotations

import numpy as np


def mix(*words: int | np.ndarray) -> np.ndarray:
    """Hash integers (or arrays of them, broadcast) into uint64: SplitMix64's finaliser over each word in turn.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", constants of figure 17. Of a
    single word it is `splitmix64` in `native/random.h`, which a test holds together with this.
    """
    state = np.zeros(np.broadcast_shapes(*(np.shape(word) for word in words)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = (state ^ np.asarray(word).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniforms(keys: np.ndarray, counters: np.ndarray, stream: int) -> np.ndarray:
    """Float64 in [0, 1), a number for each (key, counter), broadcast; streams are independent of one another."""
    return (mix(keys, counters, stream) >> np.uint64(11)) * 2.0**-53


def generator(*key: int) -> np.random.Generator:
    """A generator of its own for each key, for what is drawn in one go: permutations, numbers of unknown count."""
    return np.random.Generator(np.random.Philox(key=int(mix(*key))))
