"""A model as ONNX: padded inputs, every head, dynamic batch and length, checked against the model it is of.

Shapes: B texts, L tokens of the longest, C choices, A heads, D = H/A, H hidden.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch, pack_sequences
from bothways.checkpoint.hugging_face import Checkpoint, write_all_but_weights
from bothways.data.encoded import Encoded
from bothways.data.prompts import Prompt
from bothways.errors import UserError, install_command
from bothways.files import replace_directory
from bothways.inference.agreement import Agreement
from bothways.inference.padded_pooling import padded_last, padded_mean, pool_padded
from bothways.model.attention import Attend
from bothways.model.attention_mask import AttentionMask
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, Model
from bothways.model.pretraining_heads import CausalLMHead, MaskedLMHead, PretrainingHead
from bothways.model.task_heads import ChoiceHead, EmbeddingHead, EncoderHead, SequenceHead, SpanHead, TokenHead

OPSET = 20  # the first with GELU as one operator
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
AXES = {2: ("batch", "length"), 3: ("batch", "choices", "length")}
MAX_DIFFERENCE = 1e-3  # of an output; float32 in another order of summation is within 1e-4 for all our models


class PaddedEncoder(nn.Module):
    """The encoder on padded batches: ids, mask and token types `[B, L]` → hidden states `[B, L, H]`.

    The layers are the model's, which look at the last dimension of hidden states only; attention is told apart by a
    mask instead of by `cu_seqlens`. So the numbers are the same up to rounding.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        unused = torch.empty(0)  # where sequences begin and how long they are: the mask says it
        batch = PackedBatch(input_ids, token_type_ids, positions, unused, input_ids.shape[1], unused)
        return cast("Tensor", self.encoder(batch, attend=attend_padded(attention_mask)))


def attend_padded(attention_mask: Tensor) -> Attend:
    """Attention for padded batches, whose queries, keys and values are float32 `[B, L, A, D]`; attention_mask:
    `[B, L]`, 0 at padding."""
    order = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    seen = attention_mask[:, None, None, :].bool()
    biases: dict[tuple[bool, int | None], Tensor] = {}  # made once for all layers with a mask

    def attend(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        kind = mask.causal, mask.window
        if kind not in biases:
            near = mask.seen(order, order)
            biases[kind] = _bias(seen if near is None else seen & near)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + biases[kind]
        if mask.bias is not None:
            scores = scores + mask.by_distance(order, order)
        return (torch.softmax(scores, -1) @ v).transpose(1, 2)

    return attend


def _bias(seen: Tensor) -> Tensor:
    """0 where a key is seen, the lowest float32 where not."""
    return torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, torch.finfo(torch.float32).min)


@dataclass(frozen=True)
class PaddedForm:
    """A head's outputs as ONNX has them.

    names: what they are called, as `optimum` expects them. padded: (head, hidden states `[B, L, H]`, mask `[B, L]`) →
    the outputs. packed: (scores, hidden states `[L, H]`) of one sequence by the model itself → the same outputs.
    """

    names: tuple[str, ...]
    padded: Callable[[Any, Tensor, Tensor], tuple[Tensor, ...]]
    packed: Callable[[Any, Tensor], tuple[Tensor, ...]]


def _vocabulary(head: Any, hidden: Tensor) -> Tensor:
    return cast("Tensor", head.lm.decoder(head.lm(hidden).hidden))


def _pooled(head: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    """What a head makes of the state of each sequence that it reads, `[B, H]`."""
    if head.reading == "first":
        state = hidden[:, 0]
    elif head.reading == "mean":
        state = padded_mean(hidden, mask)
    else:
        state = padded_last(hidden, mask)
    return cast("Tensor", head.pooler(state))


def _transformed(head: Any, hidden: Tensor) -> Tensor:
    return hidden if head.transform is None else cast("Tensor", head.transform(hidden))


def _embedding(head: Any, hidden: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    vectors = pool_padded(head.pool, hidden, mask)
    for projection in head.projections:
        vectors = projection(vectors)
    return hidden, F.normalize(vectors, dim=-1) if head.normalize else vectors


FORMS: dict[type[Head], PaddedForm] = {
    SequenceHead: PaddedForm(
        ("logits",),
        lambda head, hidden, mask: (head.classifier(_pooled(head, hidden, mask)),),
        lambda scores, hidden: (scores[0],),
    ),
    ChoiceHead: PaddedForm(
        ("logits",),
        lambda head, hidden, mask: (head.classifier(_pooled(head, hidden, mask)),),
        lambda scores, hidden: (scores,),
    ),
    TokenHead: PaddedForm(
        ("logits",),
        lambda head, hidden, mask: (head.classifier(_transformed(head, hidden)),),
        lambda scores, hidden: (scores,),
    ),
    SpanHead: PaddedForm(
        ("start_logits", "end_logits"),
        lambda head, hidden, mask: head.qa_outputs(_transformed(head, hidden)).unbind(-1),
        lambda scores, hidden: scores.unbind(-1),
    ),
    MaskedLMHead: PaddedForm(
        ("logits",),
        lambda head, hidden, mask: (_vocabulary(head, hidden),),
        lambda scores, hidden: (scores.mlm.logits,),
    ),
    CausalLMHead: PaddedForm(
        ("logits",),
        lambda head, hidden, mask: (_vocabulary(head, hidden),),
        lambda scores, hidden: (scores.logits,),
    ),
    PretrainingHead: PaddedForm(
        ("prediction_logits", "seq_relationship_logits"),
        lambda head, hidden, mask: (_vocabulary(head, hidden), head.nsp(head.pooler(hidden[:, 0]))),
        lambda scores, hidden: (scores.mlm.logits, scores.nsp[0]),
    ),
    EmbeddingHead: PaddedForm(
        ("last_hidden_state", "sentence_embedding"),
        _embedding,
        lambda scores, hidden: (hidden, scores[0]),
    ),
    EncoderHead: PaddedForm(
        ("last_hidden_state", "pooler_output"),
        lambda head, hidden, mask: (hidden, _pooled(head, hidden, mask)),
        lambda scores, hidden: (hidden, scores[0]),
    ),
}


class PaddedModel(nn.Module):
    """Encoder and head on padded batches, `[B, L]`; of multiple choice `[B, C, L]` → logits `[B, C]`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder, self.head = PaddedEncoder(model.encoder), model.head
        form = FORMS[type(model.head)]
        self.names, self._outputs = form.names, form.padded
        self.choices = "choice" in model.head.abilities

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        shape = input_ids.shape
        inputs = [tensor.flatten(0, -2) for tensor in (input_ids, attention_mask, token_type_ids)]
        outputs = self._outputs(self.head, self.encoder(*inputs), inputs[1])
        return tuple(output.view(shape[:-1]) for output in outputs) if self.choices else tuple(outputs)


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and how near it is to the model.

    file: the ONNX model. difference: the largest of a number in an output from the model's. int8: the quantised file,
    and the least cosine of an output with the model's; None where it was not asked for.
    """

    file: Path
    difference: float
    int8: tuple[Path, float] | None


def export_onnx(checkpoint: Checkpoint, directory: Path, int8: bool = False) -> Exported:
    """Write `model.onnx` with config and tokenizer, and, with `int8`, `model_quantized.onnx`.

    What ONNX Runtime makes of the file is compared with what the model does, on texts of several lengths in one batch.
    Raises UserError where the extra `onnx` is not installed, where the two differ by more than `MAX_DIFFERENCE`, for a
    head that has no padded form, and for one that leaves a prompt out of its vectors, which tokens do not tell.
    """
    _require_extra()
    model = checkpoint.model.float().cpu().eval()
    if type(model.head) not in FORMS:
        raise UserError(f"export onnx: no form of {type(model.head).__name__} is known")
    prompt = Prompt.of_state(checkpoint.metadata)
    if prompt.text and not prompt.pooled:
        raise UserError(
            f"export onnx: {checkpoint.source} leaves its default prompt {prompt.text[:40]!r} out of the pooling "
            "(include_prompt), and an ONNX model, which is given tokens, cannot tell it from the text"
        )
    with replace_directory(directory) as partial:
        write_all_but_weights(checkpoint, partial)
        _write(model, partial / "model.onnx", prompt.text)
        difference, _ = _compare(model, partial / "model.onnx")
        if not difference < MAX_DIFFERENCE:
            raise UserError(f"export onnx: ONNX Runtime's outputs differ by {difference:.2g} from the model's")
        cosine = None
        if int8:
            _quantise(partial / "model.onnx", partial / "model_quantized.onnx")
            _, cosine = _compare(model, partial / "model_quantized.onnx")
    quantised = None if cosine is None else (directory / "model_quantized.onnx", cosine)
    return Exported(directory / "model.onnx", difference, quantised)


def _write(model: Model, path: Path, prompt: str) -> None:
    """prompt: what stands before every text, kept as the file's own metadata; empty where there is none."""
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
    named = {dim.dim_param: name for dim, name in zip(first, AXES[len(shape)], strict=True)}
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_param = named[dim.dim_param]
    if prompt:
        proto.metadata_props.add(key="prompt", value=prompt)
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
    longest = min(64, model.config.max_sequence_length)
    lengths = (3, longest, longest // 2, 7)
    ids = generator.integers(0, model.config.vocab_size, (len(lengths), longest))
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
    types = mask * (np.arange(longest) > 4) * (model.config.type_vocab_size > 1)
    inputs = [ids * mask, mask, types]
    choices = "choice" in model.head.abilities
    if choices:
        inputs = [array.reshape(2, 2, longest) for array in inputs]
    found = session.run(None, dict(zip(INPUTS, inputs, strict=True)))
    if choices:
        found = [array.reshape(len(lengths), 1) for array in found]
    differences, cosines = [], []
    for number, length in enumerate(lengths):
        expected = packed_outputs(model, ids[number, :length], types[number, :length])
        for output, wanted in zip(found, expected, strict=True):
            given = output[number][: len(wanted)].ravel()
            differences.append(np.abs(given - wanted.ravel()).max())
            cosines.append(_cosine(given, wanted.ravel()))
    return float(np.max(differences)), float(np.min(cosines))  # which keep a NaN


def measure_file(model: Model, path: Path, encoded: Sequence[Encoded]) -> Agreement:
    """How near an ONNX file's outputs are to the model's own, in float32, on texts as sequences.

    The cosine is of all of a text's outputs; the label is the likeliest, of models that label a text.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    cosines, labels = [], []
    for text in encoded:
        ids, types = (array.astype(np.int64) for array in (text.input_ids, text.token_type_ids))
        given = session.run(None, dict(zip(INPUTS, (ids[None], np.ones_like(ids)[None], types[None]), strict=True)))
        wanted = packed_outputs(model, ids, types)
        cosines.append(
            _cosine(*(np.concatenate([output.ravel() for output in outputs]) for outputs in (given, wanted)))
        )
        labels.append(given[0].argmax() == wanted[0].argmax())
    has_labels = "sequence" in model.head.abilities and wanted[0].size > 1
    return Agreement(
        len(encoded), float(np.mean(cosines)), float(np.min(cosines)), float(np.mean(labels)) if has_labels else None
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@torch.inference_mode()
def packed_outputs(model: Model, input_ids: np.ndarray, token_type_ids: np.ndarray) -> list[np.ndarray]:
    """What the model gives for one sequence, in the order of the exported outputs' names."""
    batch = pack_sequences([(input_ids, token_type_ids)])
    every = torch.arange(len(input_ids))
    batch.targets = {"mlm_index": every, "word_index": every}
    outputs = FORMS[type(model.head)].packed(model(batch), model.encoder(batch))
    return [output.numpy() for output in outputs]


def _require_extra() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"export onnx: {error.name} is not installed: {install_command('onnx')}") from error
