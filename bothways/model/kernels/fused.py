"""What stands between the products of BERT's layer, for training on a CPU as compiled calls: `native/bias_gelu.cpp` and
`native/residual_norm.cpp`.

Each is differentiable once, keeps what the product gave and computes the rest again in the backward pass, and gives the
same bits on any number of threads. Rows are of `ROW_MULTIPLE` numbers.

Shapes: R rows, H numbers of a row.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bothways.model.dropout import draw_63_bits
from bothways.native.loading import library, mirror_structure

ROW_MULTIPLE = 16  # the most numbers in a register of any CPU, so that what is computed where is the same on all


@mirror_structure
class BiasGeluCall(ctypes.Structure):
    """The structure of `native/bias_gelu.cpp`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "dout", "out", "dx", "bias", "dbias")),
        *((name, ctypes.c_int64) for name in ("rows", "width", "is_bfloat16", "threads")),
    ]


@mirror_structure
class ResidualNormCall(ctypes.Structure):
    """The structure of `native/residual_norm.cpp`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "residual", "dout", "out", "dx", "dresidual")),
        *((name, ctypes.c_void_p) for name in ("bias", "weight", "norm_bias", "sums", "moments")),
        *((name, ctypes.c_int64) for name in ("rows", "width", "x_is_bfloat16", "is_bfloat16", "threads")),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_double) for name in ("epsilon", "dropout")),
    ]


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """gelu(x + bias), the exact one, of x `[R, H]`, float32 or bfloat16, and bias `[H]`, float32; of x's type.

    Raises ValueError where H is no multiple of `ROW_MULTIPLE` or a tensor is of another type or shape,
    torch.OutOfMemoryError when memory runs out.
    """
    _check(x, bias)
    out: Tensor = _BiasGelu.apply(x, bias)
    return out


def residual_norm(x: Tensor, bias: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout: float = 0.0) -> Tensor:
    """norm(residual + dropout(x + bias)) of x and residual `[R, H]` and bias `[H]`, float32; of the residual's type.

    x is of the residual's type, or bfloat16 where that is float32. dropout: the probability of dropping a number, 0 to
    below 1; one draw of torch's CPU generator decides which are dropped, and it drops what `Dropout` does.
    Raises ValueError and torch.OutOfMemoryError as `bias_gelu`.
    """
    _check(x, bias, norm.weight, norm.bias)
    if residual.shape != x.shape or residual.dtype not in (x.dtype, torch.float32):
        raise ValueError(f"{_described(x)} beside a residual that is {_described(residual)}")
    options = _NormOptions(norm.eps, dropout, draw_63_bits() if dropout else 0)
    out: Tensor = _ResidualNorm.apply(x, bias, residual, norm.weight, norm.bias, options)
    return out


def _check(x: Tensor, *parameters: Tensor) -> None:
    width = x.shape[-1]
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"{_described(x)}, to be float32 or bfloat16")
    if width % ROW_MULTIPLE or any(p.dtype != torch.float32 or p.shape != (width,) for p in parameters):
        described = ", ".join(map(_described, parameters))
        raise ValueError(f"rows of {width} numbers, to be a multiple of {ROW_MULTIPLE}, and {described}")


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        x, bias = x.contiguous(), bias.contiguous()
        out = torch.empty_like(x)
        call = _gelu_call(x, bias)
        call.out = out.data_ptr()
        _run("bothways_bias_gelu", call)
        ctx.save_for_backward(x, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
        x, bias = ctx.saved_tensors
        dout, dx, dbias = dout.contiguous(), torch.empty_like(x), torch.empty_like(bias)
        call = _gelu_call(x, bias)
        call.dout, call.dx, call.dbias = dout.data_ptr(), dx.data_ptr(), dbias.data_ptr()
        _run("bothways_bias_gelu_backward", call)
        return dx, dbias


@dataclass(frozen=True)
class _NormOptions:
    epsilon: float
    dropout: float
    seed: int


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor, residual: Tensor, weight: Tensor, norm_bias: Tensor, options: _NormOptions
    ) -> Tensor:
        tensors = [tensor.contiguous() for tensor in (x, bias, residual, weight, norm_bias)]
        out = torch.empty_like(tensors[2])
        moments = torch.empty(out.numel() // out.shape[-1], 2)
        call = _norm_call(tensors, moments, options)
        call.out = out.data_ptr()
        _run("bothways_residual_norm", call)
        ctx.save_for_backward(*tensors, moments)
        ctx.options = options
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, moments = ctx.saved_tensors
        x, _, residual, *_ = tensors
        dout, dresidual = dout.contiguous(), torch.empty_like(residual)
        is_same = x.dtype == residual.dtype and not ctx.options.dropout
        dx = dresidual if is_same else torch.empty_like(x)
        sums = torch.empty(3, x.shape[-1])
        call = _norm_call(tensors, moments, ctx.options)
        call.dout, call.dresidual, call.sums = dout.data_ptr(), dresidual.data_ptr(), sums.data_ptr()
        call.dx = None if is_same else dx.data_ptr()
        _run("bothways_residual_norm_backward", call)
        dbias, dweight, dnorm_bias = sums
        return dx, dbias, dresidual, dweight, dnorm_bias, None


def _gelu_call(x: Tensor, bias: Tensor) -> BiasGeluCall:
    """The arguments that both directions share."""
    return BiasGeluCall(
        x=x.data_ptr(),
        bias=bias.data_ptr(),
        rows=x.numel() // x.shape[-1],
        width=x.shape[-1],
        is_bfloat16=x.dtype == torch.bfloat16,
        threads=torch.get_num_threads(),
    )


def _norm_call(tensors: Iterable[Tensor], moments: Tensor, options: _NormOptions) -> ResidualNormCall:
    """The arguments that both directions share."""
    x, bias, residual, weight, norm_bias = tensors
    return ResidualNormCall(
        x=x.data_ptr(),
        residual=residual.data_ptr(),
        bias=bias.data_ptr(),
        weight=weight.data_ptr(),
        norm_bias=norm_bias.data_ptr(),
        moments=moments.data_ptr(),
        rows=len(moments),
        width=x.shape[-1],
        x_is_bfloat16=x.dtype == torch.bfloat16,
        is_bfloat16=residual.dtype == torch.bfloat16,
        threads=torch.get_num_threads(),
        seed=options.seed,
        epsilon=options.epsilon,
        dropout=options.dropout,
    )


def _run(function: str, call: ctypes.Structure) -> None:
    compiled = library()
    assert compiled is not None
    if not getattr(compiled, function)(ctypes.byref(call)):
        raise torch.OutOfMemoryError("training: memory ran out")
