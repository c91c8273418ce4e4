"""The engines that `encode.py` and `latency.py` compare: each takes padded or packed token ids and gives a vector a
text, the mean over its tokens. All get the same ids; none is charged for tokenising."""

from __future__ import annotations

import csv
import json
import logging
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import minilm
from transformers import AutoModel, BertConfig, BertModel

import bothways as bw
from bothways.data.encoded import Encoded
from bothways.inference.vectors import sequence_vectors
from bothways.predictor import Predictor

BATCH = 32
Vectors = np.ndarray
Engine = Callable[[Sequence[Encoded]], Vectors]


def texts(folder: Path, number: int = 600) -> list[str]:
    """News, bank customers' questions and encyclopedia paragraphs: short and long ones, in any order."""
    drawn = random.Random(0)
    with (folder / "ag-news" / "test.tsv").open(encoding="utf-8", newline="") as file:
        news = [max(row, key=len) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    with (folder / "banking77" / "test.csv").open(encoding="utf-8", newline="") as file:
        bank = [row["text"] for row in csv.DictReader(file)]
    squad = json.loads((folder / "squad" / "dev-v1.1.json").read_text(encoding="utf-8"))["data"]
    pages = [paragraph["context"] for article in squad for paragraph in article["paragraphs"]]
    third, half = number // 3, number // 2
    chosen = drawn.sample(news, third) + drawn.sample(bank, half) + drawn.sample(pages, number - third - half)
    drawn.shuffle(chosen)
    return chosen


def model_directory(size: str, folder: Path) -> Path:
    """MiniLM with its weights, or BERT of a size with random ones, which take the same time."""
    if size == "minilm":
        return minilm()
    shapes = {"base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096)}
    hidden, layers, heads, intermediate = shapes[size]
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=intermediate
    )
    BertModel(config).eval().save_pretrained(folder / size)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / size / name).write_bytes((minilm() / name).read_bytes())
    return folder / size


def padded(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    longest = max(len(sequence.input_ids) for sequence in encoded)
    ids = np.zeros((len(encoded), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(encoded):
        ids[row, : len(sequence.input_ids)] = sequence.input_ids
        mask[row, : len(sequence.input_ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    share = mask[..., None].astype(np.float32)
    vectors = (hidden * share).sum(1) / share.sum(1)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def batched(encoded: Sequence[Encoded], run: Callable[[dict[str, np.ndarray]], np.ndarray], by_length: bool) -> Vectors:
    """`run` on batches of 32, in order of arrival or of length, as sentence-transformers does."""
    order = sorted(range(len(encoded)), key=lambda n: -len(encoded[n].input_ids)) if by_length else range(len(encoded))
    vectors: list[Any] = [None] * len(encoded)
    for start in range(0, len(encoded), BATCH):
        chosen = list(order[start : start + BATCH])
        inputs = padded([encoded[n] for n in chosen])
        for n, vector in zip(chosen, pooled(run(inputs), inputs["attention_mask"]), strict=True):
            vectors[n] = vector
    return np.array(vectors)


def with_transformers(directory: Path, dtype: torch.dtype = torch.float32, by_length: bool = False) -> Engine:
    model = AutoModel.from_pretrained(directory, dtype=dtype).eval()

    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        return np.asarray(model(**tensors).last_hidden_state.float().numpy())

    return lambda encoded: batched(encoded, run, by_length)


@dataclass(frozen=True)
class OnnxFiles:
    """float32 as exported; fused by ONNX Runtime's own optimiser for BERT; int8 of the fused one."""

    plain: Path
    fused: Path
    int8: Path


def onnx_files(directory: Path, folder: Path) -> OnnxFiles:
    import onnx
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers import optimizer

    model = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()
    ids = torch.ones(2, 16, dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    files = OnnxFiles(*(folder / f"{name}.onnx" for name in ("plain", "fused", "int8")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _States(model), (ids, torch.ones_like(ids), torch.zeros_like(ids)), str(files.plain), input_names=names,
            output_names=["last_hidden_state"], dynamo=False, opset_version=17,
            dynamic_axes={name: {0: "batch", 1: "length"} for name in (*names, "last_hidden_state")},
        )  # fmt: skip
    heads, hidden = model.config.num_attention_heads, model.config.hidden_size
    fused = optimizer.optimize_model(str(files.plain), "bert", num_heads=heads, hidden_size=hidden, opt_level=1)
    fused.save_model_to_file(str(files.fused))
    logging.getLogger().setLevel(logging.ERROR)
    unknown = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of fused operators, which shape inference passes over
    quantize_dynamic(files.fused, files.int8, per_channel=True, reduce_range=True, extra_options=unknown)
    return files


class _States(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return self.model(**inputs).last_hidden_state


def with_onnx_runtime(file: Path) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda encoded: batched(encoded, lambda inputs: session.run(None, inputs)[0], by_length=True)


def with_openvino(file: Path, precision: str, hint: str = "LATENCY") -> Engine:
    import openvino

    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": precision}
    model = core.compile_model(core.read_model(str(file)), "CPU", settings)
    if hint == "LATENCY":
        return lambda encoded: batched(encoded, lambda inputs: model(inputs)[0], by_length=True)
    return lambda encoded: _in_streams(model, encoded)


def _in_streams(model: Any, encoded: Sequence[Encoded]) -> Vectors:
    """OpenVINO's throughput mode: several requests at the same time."""
    import openvino

    order = sorted(range(len(encoded)), key=lambda n: -len(encoded[n].input_ids))
    vectors: list[Any] = [None] * len(encoded)

    def keep(request: Any, part: tuple[list[int], np.ndarray]) -> None:
        chosen, mask = part
        for n, vector in zip(chosen, pooled(request.get_output_tensor(0).data, mask), strict=True):
            vectors[n] = vector

    queue = openvino.AsyncInferQueue(model)
    queue.set_callback(keep)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        inputs = padded([encoded[n] for n in chosen])
        queue.start_async(inputs, (chosen, inputs["attention_mask"]))
    queue.wait_all()
    return np.array(vectors)


def with_bothways(directory: Path, precision: Any) -> Engine:
    model: Predictor = bw.load(directory, "cpu", precision)
    return lambda encoded: np.array(sequence_vectors(model, encoded))


def engines(directory: Path, folder: Path, half: bool) -> Iterator[tuple[str, Engine]]:
    """Every engine at each setting that the machine is made for."""
    transformers.utils.logging.disable_progress_bar()
    files = onnx_files(directory, folder)
    yield "transformers float32, as they arrive", with_transformers(directory)
    yield "transformers float32, by length", with_transformers(directory, by_length=True)
    yield "ONNX Runtime float32, fused", with_onnx_runtime(files.fused)
    yield "OpenVINO float32", with_openvino(files.plain, "f32")
    yield "OpenVINO float32, streams", with_openvino(files.plain, "f32", "THROUGHPUT")
    yield "Bothways float32", with_bothways(directory, "float32")
    if half:
        yield "transformers bfloat16, by length", with_transformers(directory, torch.bfloat16, by_length=True)
        yield "OpenVINO bfloat16", with_openvino(files.plain, "bf16")
        yield "OpenVINO bfloat16, streams", with_openvino(files.plain, "bf16", "THROUGHPUT")
        yield "Bothways bfloat16", with_bothways(directory, "bfloat16")
    yield "ONNX Runtime int8, fused", with_onnx_runtime(files.int8)
    yield "Bothways int8", with_bothways(directory, "int8")


def temporary() -> Any:
    return tempfile.TemporaryDirectory(prefix="bothways-engines-")
