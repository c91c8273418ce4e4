"""A model made ready for inference: its precision chosen from the hardware, its matrices laid out once.

Linear layers are exchanged for others that compute the same: `prepare_model` puts them in a copy, and everything else,
attention, norms and heads, stays as the model has it.

Shapes: R tokens that go through a linear layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.hardware import cpu_multiplies_int8
from bothways.inference.compiled import CompiledModel, supports
from bothways.inference.packed_linear import PackedLinear
from bothways.model.encoder import Layer
from bothways.model.heads import Model, device_of
from bothways.native.loading import library
from bothways.precision import InferencePrecision

# Numbers in a matrix from which `FewRowsLinear` is used. Measured in float32 on an AVX-512 core beside other work: with
# one row, prepacked matrices of 256 × 256, 384 × 384 and 1,024 × 256 (this size) take 1.9, 1.6 and 1.2 times as long;
# with 16 rows 1.0, 1.05 and 0.6 times.
MIN_PREPACKED_WEIGHTS = 1 << 18
# Rows up to which `FewRowsLinear` is prepacked: a step of generation, a request of a few short texts. There matrices of
# 1,024 × 256 to 30,522 × 256 take 0.8 to 0.4 of the time, at 512 rows 0.9 to 0.6.
MAX_FEW_ROWS = 64


class PrepackedLinear(nn.Module):
    """`nn.Linear` with its matrix in blocks of the size that oneDNN's kernels read, and GELU in the same pass."""

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._epilogue = ("gelu", "none") if gelu else ("none", "")  # oneDNN's name and its variant

    def forward(self, x: Tensor) -> Tensor:
        epilogue, variant = self._epilogue
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._blocks, self._bias, epilogue, [], variant)
        return product


class FewRowsLinear(nn.Module):
    """`nn.Linear`, and `PrepackedLinear` for up to `MAX_FEW_ROWS` rows.

    The prepacked matrix is made when so few rows first come, since it takes the matrix's memory again.

    Measured in float32 on two AVX2 cores: 30,522 × 256 with 1 row 3.2 → 1.5 ms, with 16 rows 8.5 → 2.6 ms; all of
    MiniLM's matrices with 16 rows 6.2 → 4.5 ms, but with 4,096 rows 1.1 times slower.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self._linear, self._gelu = linear, gelu
        self._prepacked: PrepackedLinear | None = None

    def forward(self, x: Tensor) -> Tensor:
        if len(x) <= MAX_FEW_ROWS:
            self._prepacked = self._prepacked or PrepackedLinear(self._linear, self._gelu)
            return cast("Tensor", self._prepacked(x))
        product = self._linear(x)
        return torch.ops.aten.gelu_(product) if self._gelu else product


class Int8Linear(nn.Module):
    """`nn.Linear` in int8 where no library was compiled, as `PackedLinear` does it.

    A row's result depends on that row alone. Without instructions that add up four products in 32 bits (VNNI, AMX) two
    products share 16 bits, for which the input has to be 7 bits wide.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self._scales = weight.abs().amax(1).clamp_min(1e-12) / 127
        quantised = (weight / self._scales[:, None]).round().to(torch.int8)
        self._blocks = torch.ops.onednn.qlinear_prepack(quantised, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.long)
        bias: Tensor | None = linear.bias
        self._bias = self._scales.new_zeros(len(weight)) if bias is None else bias.detach()
        self._gelu = gelu
        self._levels = 127 if cpu_multiplies_int8() else 63

    def forward(self, x: Tensor) -> Tensor:
        low, high = torch.aminmax(x, dim=1, keepdim=True)
        largest = torch.maximum(high, -low).clamp_min_(1e-12)
        zero = self._levels + 1
        quantised = (x * (self._levels / largest)).add_(zero + 0.5).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            quantised, 1 / self._levels, zero, self._blocks, self._scales, self._zeros, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        result = torch.addcmul(self._bias, product, largest, out=product)
        return torch.ops.aten.gelu_(result) if self._gelu else result


def prepare_model(model: Model, precision: InferencePrecision = "float32") -> Model:
    """Returns a copy for predictions, in this precision; unchanged tensors are shared with `model`.

    float32 and int8: through the compiled layers where they support the encoder, so that a sequence's results have the
    same bits in any company; else as `prepare_for_generation`, and through single products. Results in float32 differ
    from the model's by rounding; int8 is of the encoder's matrices alone, heads stay in float32, as those that give
    vectors do in bfloat16, too.
    """
    if precision in ("float32", "int8") and supports(model.encoder):
        return CompiledModel(model.encoder, model.head, precision).eval()
    return _with_layers(model, precision)


def prepare_for_generation(model: Model, precision: InferencePrecision = "float32") -> Model:
    """Returns a copy with layers for few rows, which generation walks through with its cache.

    A step reads every weight once, so narrower ones are faster. On a CPU with the compiled library the matrices of
    layers are in `precision`, the vocabulary's at least in bfloat16 but for float32, and everything between is in
    float32; so a text goes on with the same bits alone and beside others.
    """
    stored = next(model.parameters())
    if library() is None or stored.device.type != "cpu" or stored.dtype != torch.float32:
        return _with_layers(model, precision)
    made = _copy_sharing_tensors(model)
    _exchange(made.encoder, partial(PackedLinear, precision=precision))
    _exchange(made.head, partial(PackedLinear, precision="float32" if precision == "float32" else "bfloat16"))
    return made


def describe_layers(model: Model, precision: InferencePrecision) -> str:
    """The precision and the kind of layers of a prepared model, for people: `float32, compiled layers`."""
    if isinstance(model, CompiledModel):
        return f"{precision}, compiled layers"
    if precision == "float32" and device_of(model).type == "cpu" and library() is None:
        return "float32, torch's layers (none compiled: install Bothways again where there is a C++ compiler)"
    return f"{precision}, torch's layers"


def _copy_sharing_tensors(model: Model) -> Model:
    # deepcopy takes what is in its memo as it is
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}).eval()


def _with_layers(model: Model, precision: InferencePrecision) -> Model:
    made = copy.deepcopy(model).eval() if precision == "bfloat16" else _copy_sharing_tensors(model)
    lowered = made.encoder if made.head.in_float32 else made
    if precision == "bfloat16":
        lowered.bfloat16()
    if device_of(model).type != "cpu" or not torch.backends.mkldnn.is_available():
        return made
    if precision == "int8":
        _exchange(made.encoder, Int8Linear if library() is None else partial(PackedLinear, precision="int8"))
    elif precision == "bfloat16":
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            _exchange(lowered, PrepackedLinear)
    elif next(model.parameters()).dtype == torch.float32:
        _exchange(made, FewRowsLinear, MIN_PREPACKED_WEIGHTS)
    return made


def _exchange(model: nn.Module, kind: Callable[..., nn.Module], min_weights: int = 0) -> None:
    """Put `kind(linear, gelu=…)` in the place of every linear layer with at least so many weights; a layer's exact GELU
    goes into the product before it."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, nn.Linear) or child.weight.numel() < min_weights:
                continue
            with_gelu = isinstance(module, Layer) and name == "intermediate" and module.activation is F.gelu
            setattr(module, name, kind(child, gelu=with_gelu))
            if with_gelu:
                cast("Layer", module).activation = nn.Identity()
