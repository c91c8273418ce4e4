"""Servers of others, each as its users write it: `python benchmarks/serve_peers.py NAME MODEL PORT VERB`.

fastapi: FastAPI with sentence-transformers (or `transformers`' pipeline), a request at a time in its thread pool.
onnx, onnx-int8: the same with ONNX Runtime, from torch's own export, in int8 by dynamic quantisation.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MAX_LENGTH = 256  # tokens that MiniLM's directory says it reads

Answer = Callable[[Sequence[str]], Any]


def torch_answers(model: str, verb: str) -> Answer:
    """Texts → vectors, or labels with their scores."""
    if verb == "embed":
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(model, device="cpu")
        return lambda texts: encoder.encode(list(texts), normalize_embeddings=True).tolist()
    from transformers import pipeline

    classifier = pipeline("text-classification", model, device="cpu")
    return lambda texts: classifier(list(texts), truncation=True)


def onnx_answers(model: str, verb: str, int8: bool) -> Answer:
    """As `torch_answers`; the mean over tokens and the softmax are numpy's."""
    import numpy as np
    import onnxruntime
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(tempfile.mkdtemp(prefix="bothways-peer-"))
    try:
        path = export_onnx(model, verb, folder)
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            path, whole = folder / "int8.onnx", path
            quantize_dynamic(whole, path, weight_type=QuantType.QInt8)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    finally:
        shutil.rmtree(folder)
    tokenizer, labels = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model).id2label

    def answer(texts: Sequence[str]) -> Any:
        read = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="np")
        (found,) = session.run(None, dict(read))
        if verb == "embed":
            mask = read["attention_mask"][..., None]
            means = (found * mask).sum(1) / mask.sum(1)
            return (means / np.linalg.norm(means, axis=1, keepdims=True)).tolist()
        shares = np.exp(found - found.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        return [{"label": labels[int(row.argmax())], "score": float(row.max())} for row in shares]

    return answer


def export_onnx(model: str, verb: str, folder: Path) -> Path:
    """The model of `transformers` as a file of ONNX, of any number of texts of any length."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    kind = AutoModel if verb == "embed" else AutoModelForSequenceClassification
    loaded = kind.from_pretrained(model, attn_implementation="eager").eval()
    inputs = dict(AutoTokenizer.from_pretrained(model)(["a text", "another"], return_tensors="pt", padding=True))
    names = ("input_ids", "token_type_ids", "attention_mask")

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = loaded

        def forward(self, input_ids: Any, token_type_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids, attention_mask, token_type_ids)[0]

    # the older exporter takes two seconds of a core, the newer one minutes; both give the same numbers
    torch.onnx.export(
        First().eval(), tuple(inputs[name] for name in names), str(folder / "model.onnx"), input_names=list(names),
        dynamo=False, dynamic_axes={name: {0: "batch", 1: "length"} for name in names}, opset_version=17,
    )  # fmt: skip
    return folder / "model.onnx"


def fastapi_server(answer: Answer, port: int) -> None:
    import uvicorn
    from fastapi import Body, FastAPI

    app = FastAPI()

    @app.post("/ask")
    def ask(texts: list[str] = Body(embed=True)) -> Any:  # noqa: B008
        return answer(texts)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", TOKENIZERS_PARALLELISM="false")
    name, model, port, verb = sys.argv[1:]
    found = onnx_answers(model, verb, name == "onnx-int8") if "onnx" in name else torch_answers(model, verb)
    fastapi_server(found, int(port))
