"""Addresses, and what answers there. In a file of its own, after that of the cluster: what has asked a port that is not
Ray's keeps a thread that Ray would take for a driver of the cluster."""

from __future__ import annotations

import socket

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
