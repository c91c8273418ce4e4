"""A model made ready for inference: its precision chosen from the hardware, its matrices laid out once.

Layers are exchanged for others that compute the same: `prepare_model` puts them in a copy, and everything else,
attention, norms and heads, stays as the model has it.

Shapes: R rows.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.errors import UserError
from bothways.hardware import choose_precision, cpu_multiplies_int8
from bothways.inference.compiled import CompiledModel, supports
from bothways.model.encoder import Layer
from bothways.model.heads import Model
from bothways.native import library

InferencePrecision = Literal["auto", "float32", "bfloat16", "int8"]
PRECISIONS: tuple[InferencePrecision, ...] = ("float32", "bfloat16", "int8")
SMALLEST = 1 << 18  # numbers in a matrix that is worth laying out for few rows
FEW_ROWS = 64


class PrepackedLinear(nn.Module):
    """`nn.Linear` with its matrix in blocks of the size that oneDNN's kernels read, and GELU in the same pass."""

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self._blocks, self._bias = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach()), linear.bias.detach()
        self._after = ("gelu", "none") if gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        after, kind = self._after
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._blocks, self._bias, after, [], kind)
        return product


class FewRowsLinear(nn.Module):
    """`PrepackedLinear` for up to `FEW_ROWS` rows, made when they first come since it takes the matrix's memory again.

    Measured in float32 on two AVX2 cores: 30,522 × 256 with 1 row 3.2 → 1.5 ms, with 16 rows 8.5 → 2.6 ms; all of
    MiniLM's matrices with 16 rows 6.2 → 4.5 ms, but with 4,096 rows 1.1 times slower.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self._linear, self._gelu = linear, gelu
        self._packed: PrepackedLinear | None = None

    def forward(self, x: Tensor) -> Tensor:
        if len(x) <= FEW_ROWS:
            self._packed = self._packed or PrepackedLinear(self._linear, self._gelu)
            return cast("Tensor", self._packed(x))
        product = self._linear(x)
        return torch.ops.aten.gelu_(product) if self._gelu else product


class Int8Linear(nn.Module):
    """`nn.Linear` in whole numbers: each row of the input and each of the matrix by its own largest number.

    A row's result hangs on that row alone. Without instructions that add up four products in 32 bits (VNNI, AMX) two
    products share 16 bits, for which the input has to be 7 bits wide.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self._scales = weight.abs().amax(1).clamp_min(1e-12) / 127
        whole = (weight / self._scales[:, None]).round().to(torch.int8)
        self._blocks = torch.ops.onednn.qlinear_prepack(whole, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.long)
        self._bias, self._gelu = linear.bias.detach(), gelu
        self._levels = 127 if cpu_multiplies_int8() else 63

    def forward(self, x: Tensor) -> Tensor:
        low, high = torch.aminmax(x, dim=1, keepdim=True)
        largest = torch.maximum(high, -low).clamp_min_(1e-12)
        zero = self._levels + 1
        whole = (x * (self._levels / largest)).add_(zero + 0.5).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            whole, 1 / self._levels, zero, self._blocks, self._scales, self._zeros, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        result = torch.addcmul(self._bias, product, largest, out=product)
        return torch.ops.aten.gelu_(result) if self._gelu else result


def resolve_precision(precision: InferencePrecision, device: torch.device) -> InferencePrecision:
    """What `auto` is here: bfloat16 where the hardware multiplies it, else float32; never int8, whose answers differ.

    Raises UserError for a name that is none, and for int8 on anything but a CPU.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UserError(f"--precision {precision}: accepted: auto, {', '.join(PRECISIONS)}")
    if precision == "auto":
        half = choose_precision("auto", device) == torch.bfloat16
        return "bfloat16" if half else "float32"
    if precision == "int8" and device.type != "cpu":
        raise UserError(f"--precision int8: on a CPU only, this is {device}; use bfloat16")
    if precision == "int8" and "onednn" not in torch.backends.quantized.supported_engines:
        raise UserError("--precision int8: this build of torch has no oneDNN; use float32")
    return precision


def prepare_model(model: Model, precision: InferencePrecision = "float32") -> Model:
    """The model for predictions, in this precision: with it shares what stays as it is.

    float32: through the compiled layers where there are, else as `prepare_for_generation`; results differ from
    the model's by rounding. int8: of the encoder's matrices; heads stay in float32.
    """
    if precision == "float32" and supports(model.encoder):
        return CompiledModel(model.encoder, model.head).eval()
    return _exchanged(model, precision)


def prepare_for_generation(model: Model) -> Model:
    """The model in float32 with the layers that generation goes through one by one."""
    return _exchanged(model, "float32")


def describe_layers(model: Model, precision: InferencePrecision) -> str:
    """What a prepared model runs on, for people: `float32, compiled layers`."""
    if isinstance(model, CompiledModel):
        return f"{precision}, compiled layers"
    if precision == "float32" and next(model.parameters()).device.type == "cpu" and library() is None:
        return "float32, torch's layers (none compiled: install Bothways again where there is a C++ compiler)"
    return f"{precision}, torch's layers"


def _exchanged(model: Model, precision: InferencePrecision) -> Model:
    on_cpu = next(model.parameters()).device.type == "cpu"
    half = precision == "bfloat16"
    # what is in the memo is not copied
    memo = {} if half else {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, memo).eval()
    if half:
        made.bfloat16()
    if not on_cpu or not torch.backends.mkldnn.is_available():
        return made
    if precision == "int8":
        if resolve_precision("auto", torch.device("cpu")) == "bfloat16":
            _require_faster_than_half(made)
        _exchange(made.encoder, Int8Linear)
    elif precision == "bfloat16":
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            _exchange(made, PrepackedLinear)
    elif next(model.parameters()).dtype == torch.float32:
        _exchange(made, FewRowsLinear, SMALLEST)
    return made


def _require_faster_than_half(model: Model) -> None:
    """Raises UserError where a product in int8 takes longer than in bfloat16, which is nearer to the truth as well."""
    linear = cast("Layer", model.encoder.layers[0]).intermediate
    x = torch.randn(512, linear.in_features)
    whole, half = Int8Linear(linear), PrepackedLinear(copy.deepcopy(linear).bfloat16())
    in_int8, in_half = _seconds(lambda: whole(x)), _seconds(lambda: half(x.bfloat16()))
    if in_int8 > in_half:
        raise UserError(
            f"--precision int8: slower than bfloat16 on this machine ({in_int8 * 1e3:.2f} ms a product, "
            f"{in_half * 1e3:.2f} ms); use bfloat16"
        )


@torch.inference_mode()
def _seconds(call: Callable[[], Tensor]) -> float:
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _exchange(model: nn.Module, kind: Callable[[nn.Linear, bool], nn.Module], smallest: int = 0) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, nn.Linear) or child.weight.numel() < smallest:
                continue
            fused = isinstance(module, Layer) and name == "intermediate" and module.activation is F.gelu
            setattr(module, name, kind(child, fused))
            if fused:
                cast("Layer", module).activation = nn.Identity()
