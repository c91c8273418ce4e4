"""A model as ONNX: padded inputs, every head, dynamic batch and length, checked against the model it is of.

Shapes: B texts, L tokens of the longest, C choices, H hidden.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import pack_sequences
from bothways.checkpoint.hugging_face import Checkpoint, write_all_but_weights
from bothways.errors import UserError
from bothways.files import replace_directory
from bothways.model.encoder import Encoder, Layer
from bothways.model.heads import (
    CausalLMHead,
    ChoiceHead,
    EmbeddingHead,
    Head,
    MaskedLMHead,
    Model,
    PoolerHead,
    PretrainingHead,
    SequenceHead,
    SpanHead,
    TokenHead,
)

OPSET = 20  # the first with GELU as one operator
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
AXES = {2: ("batch", "length"), 3: ("batch", "choices", "length")}
TOLERANCE = 1e-3


class PaddedEncoder(nn.Module):
    """The encoder on padded batches: ids, mask and segments `[B, L]` → hidden states `[B, L, H]`.

    Same modules, same numbers up to rounding: only where packed sequences are told apart by `cu_seqlens`, padding is
    masked.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        tables = self.encoder.embeddings
        length = input_ids.shape[1]
        positions = tables.position(torch.arange(length, device=input_ids.device))
        hidden = tables.norm(tables.token(input_ids) + tables.token_type(token_type_ids) + positions)
        seen = attention_mask[:, None, None, :].bool()
        if self.encoder.config.is_decoder:
            order = torch.arange(length, device=input_ids.device)
            seen = seen & (order[None, :] <= order[:, None])
        bias = torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(~seen, torch.finfo(hidden.dtype).min)
        for layer in self.encoder.layers:
            hidden = _through(cast("Layer", layer), hidden, bias)
        return hidden


def _through(layer: Layer, hidden: Tensor, bias: Tensor) -> Tensor:
    attention = layer.attention
    heads = (attention.num_heads, attention.head_size)
    q, k, v = (part.unflatten(-1, heads).transpose(1, 2) for part in attention.qkv(hidden).chunk(3, -1))
    weights = torch.softmax(q @ k.transpose(-1, -2) * attention.head_size**-0.5 + bias, -1)
    return layer.finish(hidden, attention.output((weights @ v).transpose(1, 2).flatten(2)))


# (head, hidden states `[B, L, H]`, mask `[B, L]`) → outputs.
Outputs = Callable[[Any, Tensor, Tensor], tuple[Tensor, ...]]


def _vocabulary(head: Any, hidden: Tensor) -> Tensor:
    return cast("Tensor", head.lm.decoder(head.lm(hidden).rows))


def _spans(head: Any, hidden: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    start, end = head.qa_outputs(hidden).unbind(-1)
    return start, end


def _embedding(head: Any, hidden: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    share = mask.to(hidden.dtype)[..., None]
    vectors = hidden[:, 0] if head.pooling == "cls" else (hidden * share).sum(1) / share.sum(1)
    return hidden, F.normalize(vectors, dim=-1) if head.normalize else vectors


# Of each head: what its outputs are called, as `optimum` expects them, and how they are made.
HEADS: dict[type[Head], tuple[tuple[str, ...], Outputs]] = {
    SequenceHead: (("logits",), lambda head, hidden, mask: (head.classifier(head.pooler(hidden[:, 0])),)),
    ChoiceHead: (("logits",), lambda head, hidden, mask: (head.classifier(head.pooler(hidden[:, 0])),)),
    TokenHead: (("logits",), lambda head, hidden, mask: (head.classifier(hidden),)),
    SpanHead: (("start_logits", "end_logits"), _spans),
    MaskedLMHead: (("logits",), lambda head, hidden, mask: (_vocabulary(head, hidden),)),
    CausalLMHead: (("logits",), lambda head, hidden, mask: (_vocabulary(head, hidden),)),
    PretrainingHead: (
        ("prediction_logits", "seq_relationship_logits"),
        lambda head, hidden, mask: (_vocabulary(head, hidden), head.nsp(head.pooler(hidden[:, 0]))),
    ),
    EmbeddingHead: (("last_hidden_state", "sentence_embedding"), _embedding),
    PoolerHead: (
        ("last_hidden_state", "pooler_output"),
        lambda head, hidden, mask: (hidden, head.pooler(hidden[:, 0])),
    ),
}


class PaddedModel(nn.Module):
    """Encoder and head on padded batches, `[B, L]`; of multiple choice `[B, C, L]` → logits `[B, C]`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder, self.head = PaddedEncoder(model.encoder), model.head
        self.names, self._outputs = HEADS[type(model.head)]
        self.choices = isinstance(model.head, ChoiceHead)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        shape = input_ids.shape
        inputs = [one.flatten(0, -2) for one in (input_ids, attention_mask, token_type_ids)]
        outputs = self._outputs(self.head, self.encoder(*inputs), inputs[1])
        return tuple(one.view(shape[:-1]) for one in outputs) if self.choices else outputs


@dataclass(frozen=True)
class Exported:
    """file: the model. difference: the largest of an output to the model's. int8: the quantised file, and the least
    cosine of an output with the model's, where one was asked for."""

    file: Path
    difference: float
    int8: tuple[Path, float] | None


def export_onnx(checkpoint: Checkpoint, directory: Path, int8: bool = False) -> Exported:
    """Write `model.onnx` with config and tokenizer, and, with `int8`, `model_quantized.onnx`.

    What ONNX Runtime makes of the file is compared with what the model does, on texts of several lengths in one batch.
    Raises UserError where the extra `onnx` is not installed, where the two differ by more than `TOLERANCE`, and for a
    head that has no padded form.
    """
    _require_extra()
    model = checkpoint.model.float().cpu().eval()
    if type(model.head) not in HEADS:
        raise UserError(f"export onnx: no form of {type(model.head).__name__} is known")
    with replace_directory(directory) as partial:
        write_all_but_weights(checkpoint, partial)
        _write(model, partial / "model.onnx")
        difference, _ = _compare(model, partial / "model.onnx")
        if not difference < TOLERANCE:
            raise UserError(f"export onnx: ONNX Runtime's outputs differ by {difference:.2g} from the model's")
        cosine = None
        if int8:
            _quantise(partial / "model.onnx", partial / "model_quantized.onnx")
            _, cosine = _compare(model, partial / "model_quantized.onnx")
    quantised = None if cosine is None else (directory / "model_quantized.onnx", cosine)
    return Exported(directory / "model.onnx", difference, quantised)


def _write(model: Model, path: Path) -> None:
    import onnx

    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # misses torchvision
    padded = PaddedModel(model).eval()
    shape = (2, 3, 9) if padded.choices else (2, 9)
    ids = torch.arange(int(np.prod(shape))).reshape(shape) % model.config.vocab_size
    axes = dict.fromkeys(range(len(shape)), torch.export.Dim.DYNAMIC)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            padded, (ids, torch.ones_like(ids), torch.zeros_like(ids)), dynamo=True, opset_version=OPSET,
            input_names=list(INPUTS), output_names=list(padded.names), dynamic_shapes=(axes,) * 3, verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    first = proto.graph.input[0].type.tensor_type.shape.dim
    named = {one.dim_param: name for one, name in zip(first, AXES[len(shape)], strict=True)}
    for value in (*proto.graph.input, *proto.graph.output):
        for one in value.type.tensor_type.shape.dim:
            if one.dim_param in named:
                one.dim_param = named[one.dim_param]
    onnx.save(proto, path)


def _quantise(source: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises preprocessing, which changes nothing here
    # 7 bits where there is no VNNI: two products share 16 bits there
    quantize_dynamic(source, path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    logging.getLogger().setLevel(level)


def _compare(model: Model, path: Path) -> tuple[float, float]:
    """The largest difference and the least cosine between the file's outputs and the model's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    longest = min(64, model.config.max_position_embeddings)
    lengths = (3, longest, longest // 2, 7)
    ids = generator.integers(0, model.config.vocab_size, (len(lengths), longest))
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
    types = mask * (np.arange(longest) > 4) * (model.config.type_vocab_size > 1)
    inputs = [ids * mask, mask, types]
    if isinstance(model.head, ChoiceHead):
        inputs = [one.reshape(2, 2, longest) for one in inputs]
    found = session.run(None, dict(zip(INPUTS, inputs, strict=True)))
    if isinstance(model.head, ChoiceHead):
        found = [one.reshape(len(lengths), 1) for one in found]
    differences, cosines = [], []
    for number, length in enumerate(lengths):
        expected = packed_outputs(model, ids[number, :length], types[number, :length])
        for output, wanted in zip(found, expected, strict=True):
            given = output[number][: len(wanted)].ravel()
            differences.append(np.abs(given - wanted.ravel()).max())
            cosines.append(_cosine(given, wanted.ravel()))
    return float(np.max(differences)), float(np.min(cosines))  # which keep a NaN


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@torch.inference_mode()
def packed_outputs(model: Model, input_ids: np.ndarray, token_type_ids: np.ndarray) -> list[np.ndarray]:
    """What the model gives for one sequence, in the order of the exported outputs' names."""
    batch = pack_sequences([(input_ids, token_type_ids)])
    every = torch.arange(len(input_ids))
    batch.targets = {"mlm_index": every, "word_index": every}
    scores: Any = model(batch)
    match model.head:
        case PretrainingHead():
            outputs = [scores.mlm.logits, scores.nsp[0]]
        case MaskedLMHead():
            outputs = [scores.mlm.logits]
        case CausalLMHead():
            outputs = [scores.logits]
        case SpanHead():
            outputs = list(scores.unbind(-1))
        case EmbeddingHead() | PoolerHead():
            outputs = [model.encoder(batch), scores[0]]
        case TokenHead() | ChoiceHead():
            outputs = [scores]
        case _:
            outputs = [scores[0]]
    return [one.numpy() for one in outputs]


def _require_extra() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"export onnx: {error.name} is not installed: pip install 'bothways[onnx]'") from error
