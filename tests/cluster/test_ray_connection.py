"""Addresses, and what answers there."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from bothways.cluster import connection
from bothways.errors import UserError


@pytest.mark.ray
def test_an_address_that_is_not_rays_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(connection.import_ray("ray"), "is_initialized", lambda: False)
    monkeypatch.setattr(connection.import_ray("ray"), "shutdown", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"on='ray://127.0.0.1:{port}': what answers there is no Ray"),
            connection.connected(f"ray://127.0.0.1:{port}"),
        ):
            pass
    with (
        pytest.raises(UserError, match=f"nothing answers at 127.0.0.1:{port}: Connection refused"),
        connection.connected(f"ray://127.0.0.1:{port}"),
    ):
        pass


def test_addresses_and_versions() -> None:
    assert connection.check_address("ray") == ""
    assert connection.check_address("ray://head:10001") == "head:10001"
    assert connection.check_address("ray://[::1]:10001") == "[::1]:10001"
    for wrong in ("ray://head", "http://head:1", "head:10001", "ray://head:port", "", "ray://head:1/x"):
        with pytest.raises(UserError, match="expected ray or ray://HOST:PORT"):
            connection.check_address(wrong)
    python, bothways = connection.platform.python_version(), connection.__version__
    assert connection.version_fault(python, bothways) == ""
    assert connection.version_fault("2.7.18", bothways) == f"Python 2.7.18, this command {python}"
    assert connection.version_fault(python, "") == f"no Bothways; install {bothways} there"
    assert connection.version_fault(python, "0.0.1") == f"Bothways 0.0.1, this command {bothways}"


def test_a_client_server_whose_process_dies_at_its_start_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def stub(*failures: Exception) -> Any:
        left = list(failures)

        def init(address: str) -> None:
            if left:
                raise left.pop(0)

        return SimpleNamespace(init=init)

    dies = ConnectionAbortedError("Initialization failure from server:\n")
    connection._connect(stub(dies, dies), "ray://head:1", {})
    with pytest.raises(UserError, match=r"no connection to Ray: Initialization failure from server:$"):
        connection._connect(stub(dies, dies, dies), "ray://head:1", {})
    with pytest.raises(UserError, match="no connection to Ray: another version of Ray"):
        connection._connect(stub(RuntimeError("another version of\nRay"), dies), "ray://head:1", {})
