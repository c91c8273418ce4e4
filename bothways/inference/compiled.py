"""The encoder's layers as one compiled call, `native/encoder.cpp`, where that was built.

Without it everything works, with results that differ by at most 1e-5. Shapes: T tokens, R rows a head reads, H hidden.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.inference.steady import steady_head
from bothways.model.attention_mask import BOTH_WAYS, CAUSAL
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings, LearnedPositions, OffsetPositions, RelativeBias, SinusoidalPositions
from bothways.model.encoder import Encoder, Layer, SelfAttention
from bothways.model.heads import Head, Model
from bothways.native.loading import library, mirror_structure


@mirror_structure
class LayerWeights(ctypes.Structure):
    """The structure of `native/encoder.cpp`: a weight and a bias for each part of a layer, in the layer's names."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for part in ("qkv", "attention_output", "attention_norm", "intermediate", "output", "output_norm")
        for name in (part, f"{part}_bias")
    ]


@mirror_structure
class EmbeddingTables(ctypes.Structure):
    """The structure of `native/encoder.cpp`: three tables and the norm behind their sum; None for what is not there."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("token", "token_type", "position", "norm", "norm_bias")]


@mirror_structure
class EncoderCall(ctypes.Structure):
    """The structure of `native/encoder.cpp`."""

    _fields_ = [
        ("tables", EmbeddingTables),
        ("layers", ctypes.POINTER(LayerWeights)),
        *((name, ctypes.c_int64) for name in ("num_layers", "hidden_size", "heads", "intermediate_size", "causal")),
        ("epsilon", ctypes.c_double),
        ("bias", ctypes.c_void_p),
        ("longest", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("input_ids", "token_type_ids", "position_ids", "lengths")),
        *((name, ctypes.c_int64) for name in ("sequences", "tokens", "threads")),
        ("only", ctypes.c_void_p),
        ("num_only", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("hidden", "attended", "qkv", "intermediate", "out")),
    ]


# The classes that the library computes, and of each the attributes that it knows besides weights and sub-modules: a
# subclass, or a class with a new attribute, is not supported until this table says so.
_EMBEDDING = ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
SUPPORTED: dict[type[nn.Module], tuple[str, ...]] = {
    Encoder: ("config", "order", "norm", "relative_bias"),
    Embeddings: ("token_type", "projection"),
    nn.Embedding: _EMBEDDING,
    LearnedPositions: _EMBEDDING,
    SinusoidalPositions: _EMBEDDING,
    OffsetPositions: (*_EMBEDDING, "offset"),
    RelativeBias: (*_EMBEDDING, "farthest"),
    nn.ModuleList: (),
    Layer: ("activation",),
    SelfAttention: ("num_heads", "head_size", "mask", "dropout", "rotary"),
    nn.Linear: ("in_features", "out_features"),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine"),
    Dropout: ("probability",),
}
MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class _Sizes:
    """What the library takes once for all layers and norms."""

    hidden_size: int
    heads: int
    intermediate_size: int
    causal: bool
    epsilon: float

    @classmethod
    def of(cls, encoder: Encoder) -> _Sizes:
        """Those of the first layer."""
        first = cast("Layer", encoder.layers[0])
        attention, intermediate, norm = first.attention, first.intermediate, cast("nn.LayerNorm", first.output_norm)
        return cls(
            intermediate.in_features, attention.num_heads, intermediate.out_features, attention.mask.causal, norm.eps
        )


def supports(encoder: Encoder) -> bool:
    """Whether the library computes exactly this encoder in inference; decided by its modules, not by its config.

    True where every module is of a class in `SUPPORTED`, without hooks or attributes besides, in float32 on a CPU, and
    all layers have the exact GELU, all biases, and the same sizes, heads, causality and epsilon, with no window. What
    stands before the layers may be of any width, if a projection leads to theirs.
    """
    if library() is None or not all(map(_is_known, encoder.modules())) or not len(encoder.layers):
        return False
    if encoder.norm is not None or not isinstance(encoder.embeddings.norm, nn.LayerNorm):
        return False
    sizes = _Sizes.of(encoder)
    return _embeddings_fit(encoder.embeddings, sizes) and all(
        _layer_fits(cast("Layer", layer), sizes) for layer in encoder.layers
    )


def _embeddings_fit(embeddings: Embeddings, sizes: _Sizes) -> bool:
    if embeddings.projection is not None:
        return embeddings.projection.out_features == sizes.hidden_size
    tables = [embeddings.token, embeddings.token_type, embeddings.position]
    return _norm_fits(embeddings.norm, sizes) and all(
        table.embedding_dim == sizes.hidden_size and table.max_norm is None for table in tables if table is not None
    )


def _is_known(module: nn.Module) -> bool:
    attributes = SUPPORTED.get(type(module))
    if attributes is None or not vars(module).keys() <= MODULE_ATTRIBUTES.union(attributes):
        return False
    weights = module.parameters(recurse=False)
    on_cpu = all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
    return on_cpu and not module._forward_hooks and not module._forward_pre_hooks


def _layer_fits(layer: Layer, sizes: _Sizes) -> bool:
    hidden, intermediate, attention = sizes.hidden_size, sizes.intermediate_size, layer.attention
    shapes = {
        attention.qkv: (3 * hidden, hidden),
        attention.output: (hidden, hidden),
        layer.intermediate: (intermediate, hidden),
        layer.output: (hidden, intermediate),
    }
    return (
        all(linear.bias is not None and linear.weight.shape == shape for linear, shape in shapes.items())
        and all(_norm_fits(norm, sizes) for norm in (layer.attention_norm, layer.output_norm))
        and (attention.num_heads, attention.mask) == (sizes.heads, CAUSAL if sizes.causal else BOTH_WAYS)
        and attention.rotary is None
        and attention.num_heads * attention.head_size == hidden
        and layer.activation is F.gelu
    )


def _norm_fits(norm: nn.Module, sizes: _Sizes) -> bool:
    if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
        return False
    return norm.normalized_shape == (sizes.hidden_size,) and norm.eps == sizes.epsilon


class CompiledEncoder(nn.Module):
    """An `Encoder` for inference: packed batch → `[T, H]`, or `[R, H]` of the tokens in `only`.

    Raises IndexError for an id that its table has no row of, as torch does.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.config = encoder.config
        self._sizes = _Sizes.of(encoder)
        self._kept: list[Tensor] = []  # what the structures point at
        self._relative_bias = encoder.relative_bias
        # narrower tables are torch's work: they and their projection are a small part
        self._embeddings = encoder.embeddings if encoder.embeddings.projection is not None else None
        self._table_rows: tuple[int | None, ...] = (None, None, None)
        self._tables = EmbeddingTables() if self._embeddings is not None else self._embedding_tables(encoder.embeddings)
        layers = [self._layer_weights(cast("Layer", layer)) for layer in encoder.layers]
        self._layers = (LayerWeights * len(encoder.order))(*(layers[index] for index in encoder.order))

    def _embedding_tables(self, embeddings: Embeddings) -> EmbeddingTables:
        """Also says how many rows each of them has for ids, and None for one that is not there."""
        tables = [embeddings.token, embeddings.token_type, embeddings.position]
        rows = [None if table is None else table.weight[getattr(table, "offset", 0) :] for table in tables]
        self._table_rows = tuple(None if table is None else len(table) for table in rows)
        token, token_type, position = (None if table is None else self._keep(table) for table in rows)
        norm = cast("nn.LayerNorm", embeddings.norm)
        return EmbeddingTables(token, token_type, position, self._keep(norm.weight), self._keep(norm.bias))

    def _layer_weights(self, layer: Layer) -> LayerWeights:
        attention = layer.attention
        attention_norm, output_norm = (cast("nn.LayerNorm", norm) for norm in (layer.attention_norm, layer.output_norm))
        return LayerWeights(
            qkv=self._keep(_packed(attention.qkv.weight)),
            qkv_bias=self._keep(attention.qkv.bias),
            attention_output=self._keep(_packed(attention.output.weight)),
            attention_output_bias=self._keep(attention.output.bias),
            attention_norm=self._keep(attention_norm.weight),
            attention_norm_bias=self._keep(attention_norm.bias),
            intermediate=self._keep(_packed(layer.intermediate.weight)),
            intermediate_bias=self._keep(layer.intermediate.bias),
            output=self._keep(_packed(layer.output.weight)),
            output_bias=self._keep(layer.output.bias),
            output_norm=self._keep(output_norm.weight),
            output_norm_bias=self._keep(output_norm.bias),
        )

    def _keep(self, tensor: Tensor) -> int:
        """The address of a tensor's numbers, which stay there as long as this encoder."""
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()

    def forward(self, batch: PackedBatch, only: Tensor | None = None, threads: int = 1) -> Tensor:
        compiled, sizes = library(), self._sizes
        assert compiled is not None
        self._check_ids(batch)
        tokens, width = batch.num_tokens, sizes.hidden_size
        index = None if only is None else only.contiguous()
        out = torch.empty(tokens if index is None else len(index), width)
        hidden, attended = torch.empty(2, tokens, width)
        if self._embeddings is not None:
            hidden = self._embeddings(batch).contiguous()
        bias = None if self._relative_bias is None else self._relative_bias.bias(batch.max_seqlen).contiguous()
        rows = max(tokens, len(out))  # a head may ask for a token twice
        qkv, intermediate = torch.empty(rows, 3 * width), torch.empty(rows, sizes.intermediate_size)
        call = EncoderCall(
            tables=self._tables,
            layers=self._layers,
            num_layers=len(self._layers),
            hidden_size=width,
            heads=sizes.heads,
            intermediate_size=sizes.intermediate_size,
            causal=sizes.causal,
            epsilon=sizes.epsilon,
            bias=None if bias is None else bias.data_ptr(),
            longest=batch.max_seqlen,
            input_ids=batch.input_ids.data_ptr(),
            token_type_ids=batch.token_type_ids.data_ptr(),
            position_ids=batch.position_ids.data_ptr(),
            lengths=batch.lengths.data_ptr(),
            sequences=len(batch.lengths),
            tokens=tokens,
            threads=threads,
            only=None if index is None else index.data_ptr(),
            num_only=-1 if index is None else len(index),
            hidden=hidden.data_ptr(),
            attended=attended.data_ptr(),
            qkv=qkv.data_ptr(),
            intermediate=intermediate.data_ptr(),
            out=out.data_ptr(),
        )
        compiled.bothways_encode(ctypes.byref(call))
        return out

    def _check_ids(self, batch: PackedBatch) -> None:
        ids = (batch.input_ids, batch.token_type_ids, batch.position_ids)
        for values, rows in zip(ids, self._table_rows, strict=True):
            if rows is None:
                continue
            low, high = torch.aminmax(values)
            if low < 0 or high >= rows:
                raise IndexError(f"an id of {int(low)} to {int(high)} in a table of {rows} rows")


class CompiledModel(Model):
    """A model whose layers are compiled.

    torch's own threads sleep while it computes: after an operation they spin for milliseconds, on the cores that the
    layers need (one text of 16 tokens then takes 10 ms instead of 4).
    """

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__(encoder, steady_head(head))
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


def _packed(weight: Tensor) -> Tensor:
    """A weight `[columns, depth]` in the library's panels."""
    compiled = library()
    assert compiled is not None
    columns, depth = weight.shape
    panel = compiled.bothways_panel()
    panels = torch.empty(-(-columns // panel) * panel * depth)
    contiguous = weight.detach().contiguous()
    compiled.bothways_pack(contiguous.data_ptr(), columns, depth, panels.data_ptr())
    return panels
