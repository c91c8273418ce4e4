"""LitServe as its users write it, with batches of up to 64, in an environment of its own: `python
benchmarks/serve_litserve.py litserve MODEL PORT VERB`."""

from __future__ import annotations

import os
import sys
from typing import Any

import litserve
from serve_peers import torch_answers


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Its worker is a process of its own, so this has to be found by name."""

    def setup(self, device: str) -> None:
        self.answer = torch_answers(os.environ["PEER_MODEL"], os.environ["PEER_VERB"])

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would be read as the query's
        return request["texts"][0]

    def batch(self, inputs: Any) -> Any:
        return inputs

    def predict(self, inputs: Any) -> Any:
        return self.answer(inputs)

    def unbatch(self, outputs: Any) -> Any:
        return outputs

    def encode_response(self, output: Any) -> Any:
        return [output]


if __name__ == "__main__":
    _, model, port, verb = sys.argv[1:]
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", TOKENIZERS_PARALLELISM="false")
    os.environ.update(PEER_MODEL=model, PEER_VERB=verb)
    api = Api(max_batch_size=64, batch_timeout=0.005, api_path="/ask")
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False
    )
