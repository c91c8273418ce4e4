"""The encoder's layers as one compiled call, `native/encoder.cpp`, where that was built.

Without it everything works, and gives the same to 1e-5. Shapes: T tokens, R rows asked, H hidden.
"""

from __future__ import annotations

import ctypes
from typing import Any, cast

import torch
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.encoder import Encoder, Layer
from bothways.model.heads import Head, Model
from bothways.native import library


class _Layer(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for part in ("qkv", "output", "norm", "up", "down", "last_norm")
        for name in (part, f"{part}_bias")
    ]


class _Tables(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("token", "type", "position", "norm", "norm_bias")]


class _Call(ctypes.Structure):
    _fields_ = [
        ("tables", _Tables),
        *((name, ctypes.c_void_p) for name in ("input_ids", "token_type_ids", "position_ids")),
        ("layers", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_int64) for name in ("num_layers", "width", "heads", "intermediate", "causal")),
        ("epsilon", ctypes.c_double),
        ("lengths", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("sequences", "tokens", "threads")),
        ("hidden", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("qkv", "attended", "inner", "out")),
    ]


def supports(encoder: Encoder) -> bool:
    """Whether the library has what this encoder is made of: float32 on a CPU, with the exact GELU."""
    weight = encoder.embeddings.token.weight
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return on_cpu and encoder.config.hidden_act == "gelu" and library() is not None


class CompiledEncoder(nn.Module):
    """An `Encoder` for inference: packed batch → `[T, H]`, or `[R, H]` of the `rows` asked."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.config = encoder.config
        self._kept: list[Tensor] = []  # what the structures point at
        tables = encoder.embeddings
        self._tables = _Tables(*map(self._keep, (
            tables.token.weight, tables.token_type.weight, tables.position.weight, tables.norm.weight, tables.norm.bias,
        )))  # fmt: skip
        self._layers = (_Layer * len(encoder.layers))(*(self._layer(one) for one in encoder.layers))  # type: ignore[arg-type]

    def _layer(self, layer: Layer) -> _Layer:
        attention = layer.attention
        linears = (attention.qkv, attention.output, None, layer.intermediate, layer.output, None)
        norms = (None, None, layer.attention_norm, None, None, layer.output_norm)
        tensors: list[Tensor] = []
        for linear, norm in zip(linears, norms, strict=True):
            if linear is not None:
                tensors += [_panels(linear.weight), linear.bias]
            elif norm is not None:
                tensors += [norm.weight, norm.bias]
        return _Layer(*map(self._keep, tensors))

    def _keep(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()

    def forward(self, batch: PackedBatch, rows: Tensor | None = None, threads: int = 1) -> Tensor:
        compiled, config = library(), self.config
        assert compiled is not None
        self._check(batch)
        tokens, width, inside = batch.num_tokens, config.hidden_size, config.intermediate_size
        wanted = None if rows is None else rows.contiguous()
        out = torch.empty(tokens if wanted is None else len(wanted), width)
        hidden, attended = torch.empty(2, tokens, width)
        most = max(tokens, len(out))  # a head may ask for a token twice
        qkv, inner = torch.empty(most, 3 * width), torch.empty(most, inside)
        call = _Call(
            self._tables, batch.input_ids.data_ptr(), batch.token_type_ids.data_ptr(), batch.position_ids.data_ptr(),
            self._layers, len(self._layers), width, config.num_attention_heads, inside, config.is_decoder,
            config.layer_norm_eps, batch.lengths.data_ptr(), len(batch.lengths), tokens, threads,
            hidden.data_ptr(), *((None, -1) if wanted is None else (wanted.data_ptr(), len(out))), qkv.data_ptr(),
            attended.data_ptr(), inner.data_ptr(), out.data_ptr(),
        )  # fmt: skip
        compiled.bothways_encode(ctypes.byref(call))
        return out

    def _check(self, batch: PackedBatch) -> None:
        """Raises IndexError for what the tables have no row of, as torch does."""
        config = self.config
        sizes = (config.vocab_size, config.type_vocab_size, config.max_position_embeddings)
        for values, size in zip((batch.input_ids, batch.token_type_ids, batch.position_ids), sizes, strict=True):
            low, high = torch.aminmax(values)
            if low < 0 or high >= size:
                raise IndexError(f"an id of {int(low)} to {int(high)} in a table of {size} rows")


class CompiledModel(Model):
    """A model whose layers are compiled.

    torch's own threads are left asleep meanwhile: after an operation of theirs they spin for milliseconds, on the cores
    that the layers need (one text of 16 tokens then takes 10 ms instead of 4).
    """

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__(encoder, head)
        self.encoder = cast("Encoder", encoder if isinstance(encoder, CompiledEncoder) else CompiledEncoder(encoder))

    def forward(self, batch: PackedBatch) -> Any:
        threads = torch.get_num_threads()
        if threads > 1:
            torch.set_num_threads(1)
        try:
            hidden = self.encoder(batch, self.head.reads(batch), threads)
            return self.head(hidden, batch)
        finally:
            if threads > 1:
                torch.set_num_threads(threads)


def _panels(weight: Tensor) -> Tensor:
    compiled = library()
    assert compiled is not None
    columns, depth = weight.shape
    width = compiled.bothways_panel()
    panels = torch.empty(-(-columns // width) * width * depth)
    plain = weight.detach().contiguous()
    compiled.bothways_pack(plain.data_ptr(), columns, depth, panels.data_ptr())
    return panels
