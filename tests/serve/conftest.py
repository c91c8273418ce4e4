"""Small models behind an application, asked without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model
from bothways.model.families import head_builder
from bothways.serve.app import make_app
from bothways.serve.keys import Keys
from bothways.serve.limits import Limits
from bothways.serve.metrics import Metrics
from bothways.serve.models import served_model
from bothways.serve.service import Service
from tests.helpers import tiny_config, tiny_tokenizer
from tests.inference.test_one_and_many import model_of, trained_on

KINDS = ("classify", "pairs", "tag", "answer", "choose", "similar", "pretrained", "causal", "instruct")
Serve = Callable[..., TestClient]


def served_predictor(kind: str) -> bw.Predictor:
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
