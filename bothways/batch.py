"""The packed batch: many sequences end to end, and where each begins. There is no padding.

Shapes: T tokens of a batch, N sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

# The target that says of each sequence how many of its first tokens are a prompt that no vector counts: int64 `[N]`.
PROMPT_TARGET = "prompt_tokens"


@dataclass
class PackedBatch:
    """What flows through the model: some sequences, their tokens end to end.

    input_ids, token_type_ids, position_ids: int64 `[T]`.
    cu_seqlens: int32 `[N+1]`, starts with 0 and ends with T; sequence n is tokens `cu_seqlens[n]:cu_seqlens[n+1]`.
    max_seqlen: the longest sequence, in tokens.
    targets: tensors named by the task (`mlm_index`, `mlm_labels`, `next_sentence_label`, `labels`, …).
    lengths: int64 `[N]`, the lengths of the sequences, always on the CPU, so that no kernel has to ask the device.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    lengths: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[0]

    @property
    def num_sequences(self) -> int:
        return self.lengths.shape[0]

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on another device; from pinned memory the copy overlaps with computation."""
        if self.input_ids.device == device:
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return PackedBatch(
            move(self.input_ids),
            move(self.token_type_ids),
            move(self.position_ids),
            move(self.cu_seqlens),
            self.max_seqlen,
            self.lengths,
            {name: move(target) for name, target in self.targets.items()},
        )

    def pinned(self) -> PackedBatch:
        """The same batch in pinned memory, from which a copy to the GPU need not be waited for."""
        return PackedBatch(
            self.input_ids.pin_memory(),
            self.token_type_ids.pin_memory(),
            self.position_ids.pin_memory(),
            self.cu_seqlens.pin_memory(),
            self.max_seqlen,
            self.lengths,
            {name: target.pin_memory() for name, target in self.targets.items()},
        )


def pack(
    input_ids: np.ndarray, token_type_ids: np.ndarray, lengths: np.ndarray, targets: dict[str, np.ndarray] | None = None
) -> PackedBatch:
    """Make a batch of flat arrays: input_ids and token_type_ids `[T]`, lengths `[N]` that sum to T.

    Targets are integer or float arrays of any shape; integers become int64, floats float32.
    """
    cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    if cu_seqlens[-1] != len(input_ids):
        raise AssertionError(f"lengths sum to {cu_seqlens[-1]}, but there are {len(input_ids)} ids")
    positions = np.arange(len(input_ids), dtype=np.int64) - np.repeat(cu_seqlens[:-1].astype(np.int64), lengths)
    return PackedBatch(
        torch.from_numpy(input_ids.astype(np.int64)),
        torch.from_numpy(token_type_ids.astype(np.int64)),
        torch.from_numpy(positions),
        torch.from_numpy(cu_seqlens),
        int(lengths.max(initial=0)),
        torch.from_numpy(lengths.astype(np.int64)),
        {name: _target(values) for name, values in (targets or {}).items()},
    )


def _target(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def pack_sequences(sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> PackedBatch:
    """Make a batch of `(input_ids, token_type_ids)` pairs, in the order given."""
    lengths = np.array([len(ids) for ids, _ in sequences], dtype=np.int64)
    ids = np.concatenate([ids for ids, _ in sequences])
    return pack(ids, np.concatenate([token_type_ids for _, token_type_ids in sequences]), lengths)
