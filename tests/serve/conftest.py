"""Small models behind an application, asked without a socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model
from bothways.model.families import head_builder
from bothways.serve.app import make_app
from bothways.serve.keys import Keys
from bothways.serve.limits import Limits
from bothways.serve.metrics import Metrics
from bothways.serve.models import served_model
from bothways.serve.process import listen
from bothways.serve.service import Service
from tests.helpers import tiny_config, tiny_tokenizer
from tests.inference.test_one_and_many import model_of, trained_on

KINDS = ("classify", "pairs", "tag", "answer", "choose", "similar", "pretrained", "causal", "instruct", "nli")
SERVED_KINDS = ("classify", "tag", "answer", "similar", "pretrained", "causal", "instruct")  # behind a socket
Serve = Callable[..., TestClient]


def served_predictor(kind: str) -> bw.Predictor:
    if kind == "nli":
        return entailment_model()
    if kind != "instruct":
        return model_of(kind)
    model = new_model(tiny_config(initializer_range=0.3, is_decoder=True), head_builder("causal-LM"), seed=1)
    return bw.Predictor(Checkpoint(model.eval(), tiny_tokenizer(), trained_on("instruct")), "cpu", "float32")


def open_service(kinds: tuple[str, ...], limits: Limits | None = None) -> Service:
    service = Service(limits or Limits(), Metrics())
    service.open({kind: served_model(kind, served_predictor(kind)) for kind in kinds})
    return service


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    """A server of a model of every kind."""
    service = open_service(KINDS)
    with TestClient(make_app(service), raise_server_exceptions=False) as opened:  # type: ignore[arg-type]
        opened.service = service
        yield opened
    service.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes servers of other kinds or limits, and closes them."""
    services: list[Service] = []

    def make(*kinds: str, keys: dict[str, str] | None = None, **limits: Any) -> TestClient:
        services.append(open_service(kinds, Limits(**limits)))
        made = TestClient(make_app(services[-1], Keys(keys or {})), raise_server_exceptions=False)  # type: ignore[arg-type]
        made.service = services[-1]
        return made

    yield make
    for service in services:
        service.close()


def entailment_model() -> bw.Predictor:
    model = new_model(tiny_config(initializer_range=0.3), head_builder("sequence", 3), seed=2)
    metadata = {"task": "classify", "labels": ["contradiction", "neutral", "entailment"]}
    return bw.Predictor(Checkpoint(model.eval(), tiny_tokenizer(), metadata), "cpu", "float32")


@contextlib.contextmanager
def listening(service: Service) -> Iterator[str]:
    """The address of a server of this service, which is closed in the end."""
    socket = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        service.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where a server of models of all kinds listens."""
    service = Service(Limits(), Metrics())
    models = {kind: served_model(kind, served_predictor(kind)) for kind in SERVED_KINDS}
    service.open({**models, "nli": served_model("nli", entailment_model())})
    with listening(service) as address:
        yield address
