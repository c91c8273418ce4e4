"""The folder that the pages' commands run in, and the server that they ask."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.world import make_world


@pytest.fixture(scope="session")
def docs_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and tiny models, by the names that the pages give them."""
    folder = tmp_path_factory.mktemp("docs") / "world"
    with contextlib.chdir(folder.parent), contextlib.redirect_stderr(io.StringIO()):
        make_world(folder)
    return folder


@pytest.fixture(scope="session")
def docs_server(docs_world: Path) -> Iterator[str]:
    """Where a server of the world's models listens."""
    from bothways import load
    from bothways.serve.limits import Limits
    from bothways.serve.metrics import Metrics
    from bothways.serve.models import served_model
    from bothways.serve.service import Service
    from tests.serve.conftest import listening

    service = Service(Limits(), Metrics())
    service.open({name: served_model(name, load(docs_world / name)) for name in ("tickets", "help", "entities")})
    with listening(service) as address:
        yield address


@pytest.fixture(autouse=True)
def offline_and_without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No names of the hub are looked up; curves, which take longer than a tiny training, are tested in tests/pages."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("bothways.pages.report.curve_svg", lambda *figures: "<svg></svg>")
