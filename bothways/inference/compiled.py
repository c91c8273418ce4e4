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
from bothways.inference.packed_linear import FORMATS, Matrix, PackedMatrix
from bothways.inference.steady import steady_head
from bothways.model.attention_mask import BOTH_WAYS, CAUSAL
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings, LearnedPositions, OffsetPositions, RelativeBias, SinusoidalPositions
from bothways.model.encoder import Encoder, Layer, SelfAttention
from bothways.model.heads import Head, Model
from bothways.native.loading import library, mirror_structure
from bothways.precision import InferencePrecision


@mirror_structure
class Norm(ctypes.Structure):
    """The structure of `native/encoder.cpp`."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("weight", "bias")]


@mirror_structure
class LayerWeights(ctypes.Structure):
    """The structure of `native/encoder.cpp`."""

    _fields_ = [
        *((name, Matrix) for name in ("qkv", "attention_output", "intermediate", "output")),
        *((name, Norm) for name in ("attention_norm", "output_norm")),
    ]


@mirror_structure
class EmbeddingTables(ctypes.Structure):
    """The structure of `native/encoder.cpp`: three tables and the norm behind their sum; None for what is not there."""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("token", "token_type", "position")), ("norm", Norm)]


@mirror_structure
class EncoderCall(ctypes.Structure):
    """The structure of `native/encoder.cpp`."""

    _fields_ = [
        ("tables", EmbeddingTables),
        ("layers", ctypes.POINTER(LayerWeights)),
        ("format", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in ("num_layers", "hidden_size", "heads", "intermediate_size", "causal")),
        ("epsilon", ctypes.c_double),
        ("bias", ctypes.c_void_p),
        ("longest", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("input_ids", "token_type_ids", "position_ids", "lengths")),
        *((name, ctypes.c_int64) for name in ("sequences", "tokens", "threads")),
        ("only", ctypes.c_void_p),
        ("num_only", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("hidden", "attended", "qkv", "intermediate", "out")),
        *((name, ctypes.c_void_p) for name in ("hidden_words", "words", "hidden_factors", "factors", "scratch")),
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
    """An `Encoder` for inference: packed batch → `[T, H]`, or `[R, H]` of the tokens in `only`, in float32.

    precision: what the layers' matrices are multiplied in; what lies between the products is in float32. In int8 a row
    is scaled by its own largest number and a column of the matrix by its own, so that a text's result does not depend
    on what is beside it.
    Raises IndexError for an id that its table has no row of, as torch does.
    """

    def __init__(self, encoder: Encoder, precision: InferencePrecision = "float32") -> None:
        super().__init__()
        self.config = encoder.config
        self._precision = precision
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
        return EmbeddingTables(token, token_type, position, self._norm(embeddings.norm))

    def _layer_weights(self, layer: Layer) -> LayerWeights:
        return LayerWeights(
            qkv=self._matrix(layer.attention.qkv),
            attention_output=self._matrix(layer.attention.output),
            intermediate=self._matrix(layer.intermediate),
            output=self._matrix(layer.output),
            attention_norm=self._norm(layer.attention_norm),
            output_norm=self._norm(layer.output_norm),
        )

    def _norm(self, module: nn.Module) -> Norm:
        norm = cast("nn.LayerNorm", module)
        return Norm(self._keep(norm.weight), self._keep(norm.bias))

    def _matrix(self, linear: nn.Linear) -> Matrix:
        packed = PackedMatrix(linear, self._precision)
        self._kept += packed.tensors
        return packed.matrix

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
        scratch = torch.empty(threads, compiled.bothways_scratch(batch.max_seqlen, width // sizes.heads))
        hidden_words, words, factors = self._buffers_of_words(rows)
        call = EncoderCall(
            tables=self._tables,
            layers=self._layers,
            format=FORMATS[self._precision],
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
            hidden_words=hidden_words.data_ptr(),
            words=words.data_ptr(),
            hidden_factors=factors[0].data_ptr(),
            factors=factors[1].data_ptr(),
            scratch=scratch.data_ptr(),
        )
        compiled.bothways_encode(ctypes.byref(call))
        return out

    def _buffers_of_words(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Room for rows of hidden and for rows of any width as a product takes them, and their factors `[2, rows]`."""
        compiled, sizes = library(), self._sizes
        assert compiled is not None
        if self._precision == "float32":
            return torch.empty(0), torch.empty(0), torch.empty(2, 0)
        widest = max(sizes.hidden_size, sizes.intermediate_size)
        hidden, any_width = (
            compiled.bothways_words(FORMATS[self._precision], width) for width in (sizes.hidden_size, widest)
        )
        return (
            torch.empty(rows, hidden, dtype=torch.int32),
            torch.empty(rows, any_width, dtype=torch.int32),
            torch.empty(2, rows),
        )

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

    They run on OpenMP's threads, as torch's operations do, and these wait on their cores for what comes next. Threads
    made for each call shared a core where the other one had been idle: one text of 15 tokens took 14 ms instead of 9.
    """

    def __init__(self, encoder: Encoder, head: Head, precision: InferencePrecision = "float32") -> None:
        super().__init__(encoder, steady_head(head))
        if not isinstance(encoder, CompiledEncoder):
            self.encoder = cast("Encoder", CompiledEncoder(encoder, precision))

    def forward(self, batch: PackedBatch) -> Any:
        hidden = self.encoder(batch, self.head.reads(batch), torch.get_num_threads())
        return self.head(hidden, batch)
