"""Servers of others, each as its users write it: `python benchmarks/serve_peers.py NAME MODEL PORT VERB`.

fastapi: FastAPI with sentence-transformers (or `transformers`' pipeline), a request at a time in its thread pool.
fastapi-onnx: the same with ONNX Runtime. litserve: LitServe with batches of up to 64, in an environment of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

Answer = Callable[[Sequence[str]], Any]


def answers(model: str, verb: str, backend: str) -> Answer:
    """Texts → vectors, or labels with their scores."""
    if verb == "embed":
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(model, device="cpu", backend=backend)
        return lambda texts: encoder.encode(list(texts), normalize_embeddings=True).tolist()
    from transformers import pipeline

    if backend == "onnx":
        from optimum.onnxruntime import ORTModelForSequenceClassification
        from transformers import AutoTokenizer

        exported = ORTModelForSequenceClassification.from_pretrained(model, export=True)
        classifier = pipeline("text-classification", exported, tokenizer=AutoTokenizer.from_pretrained(model))
    else:
        classifier = pipeline("text-classification", model, device="cpu")
    return lambda texts: classifier(list(texts), truncation=True)


def fastapi_server(answer: Answer, port: int) -> None:
    import uvicorn
    from fastapi import Body, FastAPI

    app = FastAPI()

    @app.post("/ask")
    def ask(texts: list[str] = Body(embed=True)) -> Any:  # noqa: B008
        return answer(texts)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def litserve_server(model: str, verb: str, port: int) -> None:
    import litserve

    class Api(litserve.LitAPI):  # type: ignore[misc]
        def setup(self, device: str) -> None:
            self.answer = answers(model, verb, "torch")

        def decode_request(self, request: Any) -> Any:
            return request["texts"][0]

        def batch(self, inputs: Any) -> Any:
            return inputs

        def predict(self, inputs: Any) -> Any:
            return self.answer(inputs)

        def unbatch(self, outputs: Any) -> Any:
            return outputs

        def encode_response(self, output: Any) -> Any:
            return [output]

    api = Api(max_batch_size=64, batch_timeout=0.005, api_path="/ask")
    litserve.LitServer(api, accelerator="cpu").run(host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", TOKENIZERS_PARALLELISM="false")
    name, model, port, verb = sys.argv[1:]
    if name == "litserve":
        litserve_server(model, verb, int(port))
    else:
        fastapi_server(answers(model, verb, "onnx" if name == "fastapi-onnx" else "torch"), int(port))
