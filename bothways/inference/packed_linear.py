"""A linear layer whose matrix lies in the panels of `native/product.cpp`: in float32, bfloat16 or int8.

Shapes: R rows, D depth, C columns.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from bothways.native.loading import library, mirror_structure
from bothways.precision import InferencePrecision

FORMATS: dict[InferencePrecision, int] = {"float32": 0, "bfloat16": 1, "int8": 2}  # FormatNumber of native/packing.h


@mirror_structure
class Matrix(ctypes.Structure):
    """The structure of `native/packing.h`."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("panels", "factors", "excess", "bias")]


@mirror_structure
class ProductCall(ctypes.Structure):
    """The structure of `native/product.cpp`."""

    _fields_ = [
        ("x", ctypes.c_void_p),
        ("matrix", Matrix),
        *((name, ctypes.c_int64) for name in ("format", "rows", "depth", "columns", "gelu", "threads")),
        *((name, ctypes.c_void_p) for name in ("words", "factors", "out")),
    ]


class PackedMatrix:
    """The weight `[C, D]` and the bias of a linear layer in a precision. matrix: addresses in `tensors`, which have to
    be kept as long as it is used."""

    def __init__(self, linear: nn.Linear, precision: InferencePrecision) -> None:
        compiled = library()
        assert compiled is not None
        columns, depth = linear.weight.shape
        padded = -(-columns // compiled.bothways_panel()) * compiled.bothways_panel()
        number = FORMATS[precision]
        panels = torch.empty(padded * compiled.bothways_words(number, depth), dtype=torch.int32)
        factors, excess = torch.empty(padded), torch.empty(padded, dtype=torch.int32)
        weight = linear.weight.detach().contiguous()
        compiled.bothways_pack(
            weight.data_ptr(), columns, depth, number, panels.data_ptr(), factors.data_ptr(), excess.data_ptr()
        )
        bias = None if linear.bias is None else linear.bias.detach().contiguous()
        self.tensors = [panels, factors, excess, *([] if bias is None else [bias])]
        self.matrix = Matrix(
            panels.data_ptr(), factors.data_ptr(), excess.data_ptr(), None if bias is None else bias.data_ptr()
        )


class PackedLinear(nn.Module):
    """`nn.Linear` in a precision, and the exact GELU in the same pass: float32 `[R, D]` → float32 `[R, C]`.

    A row's result depends on that row alone. int8: each row is scaled by its own largest number, each column of the
    matrix by its own. Raises torch's error where memory runs out.
    """

    def __init__(self, linear: nn.Linear, precision: InferencePrecision, gelu: bool = False) -> None:
        super().__init__()
        self._packed = PackedMatrix(linear, precision)
        self._format, self._gelu = FORMATS[precision], gelu
        self.out_features, self.in_features = linear.weight.shape

    def forward(self, x: Tensor) -> Tensor:
        compiled = library()
        assert compiled is not None
        rows, threads = x.reshape(-1, self.in_features).contiguous(), torch.get_num_threads()
        words = 0 if self._format == FORMATS["float32"] else compiled.bothways_words(self._format, self.in_features)
        narrow, factors = torch.empty(len(rows), words, dtype=torch.int32), torch.empty(len(rows))
        out = torch.empty(*x.shape[:-1], self.out_features)
        call = ProductCall(
            x=rows.data_ptr(),
            matrix=self._packed.matrix,
            format=self._format,
            rows=len(rows),
            depth=self.in_features,
            columns=self.out_features,
            gelu=self._gelu,
            threads=threads,
            words=narrow.data_ptr(),
            factors=factors.data_ptr(),
            out=out.data_ptr(),
        )
        compiled.bothways_multiply(ctypes.byref(call))
        return out
