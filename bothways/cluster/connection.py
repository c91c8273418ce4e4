"""The way to a Ray cluster: one that is started or joined on this machine, or one that answers at an address."""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from bothways.errors import UserError, install_command, option
from bothways.version import __version__

ANSWER_SECONDS = 5.0  # in which an address takes a connection; across the world it takes one
CONNECT_SECONDS = 8.0  # in which what answers there speaks gRPC, as Ray does: with the above less than 15 s
SERVER_SECONDS = 60.0  # in which Ray's client server has started a process for this command: 4 s on an idle machine
SERVER_TRIES = 3  # that process dies at its start now and then (ray-project/ray issue 63202)
PROBE_SECONDS = 120.0  # in which every node has started a process; a busy one takes half a minute
OBJECT_STORE_BYTES = 80_000_000  # about the least that Ray takes; parts go through files, and only numbers through it


def import_ray(asked: str) -> Any:
    """Ray's module. asked: the value of `on`. Raises UserError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that is started here: its work is not beside ours
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of its own future
    try:
        import ray
    except ImportError:
        raise UserError(f"{option('on', asked)}: Ray is not installed: {install_command('ray')}") from None
    return ray


def check_address(asked: str) -> str:
    """`host:port` of `ray://host:port`, empty for `ray`. Raises UserError for anything else."""
    parts = urlsplit(asked)
    with contextlib.suppress(ValueError):  # of a port that is no number
        if asked == "ray":
            return ""
        if parts.scheme == "ray" and parts.hostname and parts.port and not parts.path:
            return parts.netloc
    raise UserError(f"{option('on', asked)}: expected ray or ray://HOST:PORT")


@contextlib.contextmanager
def connected(asked: str) -> Iterator[tuple[Any, bool]]:
    """Ray's module, connected to a cluster within the block, and whether the cluster was started for it; a connection
    that there is already is used and left.

    asked: `ray`, for the cluster that runs on this machine, or one that is started for the time of the block; or
    `ray://HOST:PORT`. Raises UserError where Ray is not installed, or nothing answers.
    """
    address, ray = check_address(asked), import_ray(asked)
    if ray.is_initialized():
        yield ray, False
        return
    started = False
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address:
        _require_answer(asked, address)
        _require_grpc(asked, address)
        _connect(ray, asked, quiet)
    else:
        started = _join_or_start(ray, quiet)
    try:
        yield ray, started
    finally:
        ray.shutdown()


def _join_or_start(ray: Any, quiet: dict[str, Any]) -> bool:
    """Whether a cluster was started."""
    try:
        ray.init("auto", **quiet)
        return False
    except RuntimeError as error:  # the cluster's Ray or Python is another
        raise UserError(f"{option('on', 'ray')}: {' '.join(str(error).split())}") from error
    except ConnectionError as error:
        if os.environ.get("RAY_ADDRESS"):
            raise UserError(f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: no Ray cluster answers there") from error
        ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return True


def _require_answer(asked: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(f"{option('on', asked)}: nothing answers at {address}: {error.strerror or error}") from error


def _require_grpc(asked: str, address: str) -> None:
    import grpc

    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # Ray has the certificates, and says itself what is wrong
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise UserError(f"{option('on', asked)}: what answers there is no Ray client server") from None


def _connect(ray: Any, asked: str, quiet: dict[str, Any]) -> None:
    for left in reversed(range(SERVER_TRIES)):
        try:
            return _within(SERVER_SECONDS, asked, lambda: ray.init(asked, **quiet))
        except UserError as error:
            if not left or not isinstance(error.__cause__, ConnectionError):
                raise


def _within(seconds: float, asked: str, connect: Callable[[], Any]) -> None:
    """Call a function that may never return. Raises UserError where it has not by then, or fails."""
    answers: queue.Queue[Exception | None] = queue.Queue()

    def call() -> None:
        try:
            connect()
            answers.put(None)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=call, name="bothways-connect", daemon=True).start()
    try:
        error = answers.get(timeout=seconds)
    except queue.Empty:
        late = f"Ray does not serve this command within {seconds:.0f} s; it is too busy, or what answers is not Ray"
        raise UserError(f"{option('on', asked)}: {late}") from None
    if error is not None:
        raise UserError(f"{option('on', asked)}: no connection to Ray: {_in_a_line(error)}") from error


def require_same_versions(ray: Any, asked: str) -> None:
    """Raises UserError where a node has another Python or Bothways than this process, or no Bothways."""

    def versions() -> tuple[str, str]:  # within a function, so that it goes to the nodes by value
        import platform

        try:
            from bothways.version import __version__
        except ImportError:
            return platform.python_version(), ""
        return platform.python_version(), __version__

    probe = ray.remote(num_cpus=0, max_retries=0)(versions)
    nodes = alive_nodes(ray)
    asking = [probe.options(scheduling_strategy=on_node(node)).remote() for node in nodes]
    for node, answer in zip(nodes, asking, strict=True):
        try:
            python, bothways = ray.get(answer, timeout=PROBE_SECONDS)
        except ray.exceptions.RayError as error:
            if node["NodeID"] not in {alive["NodeID"] for alive in alive_nodes(ray)}:
                continue  # it was lost just now, which Ray took a moment to see
            raise UserError(
                f"{option('on', asked)}: the node {_name(node)} runs nothing: {_first_line(error)}"
            ) from error
        if fault := version_fault(python, bothways):
            raise UserError(f"{option('on', asked)}: the node {_name(node)} has {fault}")


def version_fault(python: str, bothways: str) -> str:
    """What is wrong with the versions of a node, empty where nothing is. bothways: empty where it is not installed."""
    here = platform.python_version()
    if python.split(".")[:2] != here.split(".")[:2]:
        return f"Python {python}, this command {here}"
    if not bothways:
        return f"no Bothways; install {__version__} there"
    return "" if bothways == __version__ else f"Bothways {bothways}, this command {__version__}"


def alive_nodes(ray: Any) -> list[dict[str, Any]]:
    """The nodes of the cluster that are alive and have processors, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def on_node(node: dict[str, Any]) -> Any:
    """Ray's strategy that puts something on this node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _name(node: dict[str, Any]) -> str:
    return str(node["NodeManagerHostname"] or node["NodeManagerAddress"])


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
