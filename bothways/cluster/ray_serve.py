"""Replicas of a server on a Ray cluster: Ray Serve starts, watches, scales and replaces them, and shares requests out.

A replica is a process with the batches and the application of a server; Ray Serve's proxy on the head node passes on
what it is asked. What is deployed belongs to the cluster, so the command that deployed it may end. Deployed again, old
replicas answer what they have, then give way to new ones, some at a time; what comes meanwhile waits in the proxy.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from bothways.cluster.connection import alive_nodes, require_same_versions
from bothways.errors import UserError, install_command, option

NAME = "bothways"  # of the application in Ray Serve
STARTS = 3  # of a replica, before the reason is told
BATCHES_PER_REPLICA = 2.0  # that wait, to which replicas are added or removed
WAITING = "waiting_batches"
QUIET = {"log_level": "WARNING", "enable_access_log": False}  # of Ray; the application has a log of its own
# Ray's proxy answers 500 where a replica is lost with a request in it; this makes it 503 with Retry-After.
SHIELD = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "bothways.serve.shield.middlewares"}


class Served(Protocol):
    """What a replica answers with. app: an ASGI application."""

    app: Any

    def waiting_batches(self) -> float:
        """How many batches of work wait."""

    def require_alive(self) -> None:
        """Raises where the replica has to be replaced."""


@dataclass(frozen=True)
class ReplicaCount:
    """How many replicas there are, by load where least and most differ."""

    least: int
    most: int

    @classmethod
    def read(cls, given: str) -> ReplicaCount:
        """`N`, or `MIN-MAX`. Raises UserError for anything else."""
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", given)
        least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= least <= most:
            raise UserError(f"{option('replicas', given)}: expected a number, or MIN-MAX, of 1 or more")
        return cls(least, most)


@dataclass(frozen=True)
class Deployment:
    """What is to be deployed. open_served: called in each replica. at_once: requests that a replica takes; as many
    wait in the proxy. drain: seconds that a replica has for what it has accepted before it ends."""

    open_served: Callable[[], Served]
    replicas: ReplicaCount
    host: str
    port: int
    at_once: int
    drain: float
    with_gpus: bool


class _Ingress:
    """A replica, as Ray Serve knows it. deployed: a word that no other deployment has, so that each is an update."""

    def __init__(self, open_served: Callable[[], Served], deployed: str) -> None:
        self._served = open_served()

    def __serve_build_asgi_app__(self) -> Any:  # Ray Serve's name
        return self._served.app

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `by_waiting_batches` is told."""
        return {WAITING: self._served.waiting_batches()}

    def check_health(self) -> None:
        """Raises where Ray Serve is to replace the replica."""
        self._served.require_alive()


def by_waiting_batches(context: Any) -> tuple[float, dict[str, Any]]:
    """Ray Serve's policy: as many replicas as leave `BATCHES_PER_REPLICA` waiting at each, but while any request is
    being answered no fewer than there are, for what is in an engine does not wait."""
    waiting = sum((context.aggregated_metrics or {}).get(WAITING, {}).values())
    wanted = math.ceil(waiting / BATCHES_PER_REPLICA)
    if context.total_num_requests >= context.current_num_replicas:
        wanted = max(wanted, context.current_num_replicas)
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(least, min(most, wanted)), {}


def import_serve(asked: str) -> Any:
    """Ray Serve's module. asked: the value of `on`. Raises UserError where it is not installed."""
    try:
        from ray import serve
    except ImportError:
        raise UserError(f"{option('on', asked)}: Ray Serve is not installed: {install_command('ray')}") from None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # the verb itself says what becomes of the deployment
    return serve


def deploy(ray: Any, asked: str, deployment: Deployment) -> tuple[str, int]:
    """Deploy on a connected cluster, in place of what this made there before; the host and the port that answer.

    Returns when all replicas are ready. They are those of the first deployment while Ray Serve runs on the cluster.
    Raises UserError where a node has other versions, the cluster has no room, or a model cannot be loaded.
    """
    require_same_versions(ray, asked)
    serve = import_serve(asked)
    needs = _needs(ray, asked, deployment)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": deployment.host, "port": deployment.port},
        controller_options={"runtime_env": {"env_vars": SHIELD}},
        logging_config=QUIET,
    )
    replicas = deployment.replicas
    if replicas.least == replicas.most:
        count: dict[str, Any] = {"num_replicas": replicas.least}
    else:
        policy = {"policy_function": f"{__name__}:{by_waiting_batches.__name__}"}
        scale = {"min_replicas": replicas.least, "max_replicas": replicas.most, "policy": policy}
        count = {"autoscaling_config": scale}
    made = serve.deployment(
        name=NAME,
        ray_actor_options=needs,
        # more than the application takes, so that it is the one that refuses
        max_ongoing_requests=2 * deployment.at_once,
        max_queued_requests=deployment.at_once,
        graceful_shutdown_timeout_s=deployment.drain,
        max_constructor_retry_count=STARTS,
        logging_config=QUIET,
        **count,
    )(serve.ingress()(_Ingress))
    try:
        serve.run(made.bind(deployment.open_served, uuid.uuid4().hex), name=NAME)
    except RuntimeError as error:
        raise UserError(_reason(asked, serve, error)) from error
    options = serve.context._get_global_client().http_config  # the one place that has it
    return str(options.host), int(options.port)


def end_deployment(asked: str) -> bool:
    """End what was deployed, on a connected cluster, and Ray Serve where it has nothing else; whether there was any."""
    serve = import_serve(asked)
    there = NAME in serve.status().applications
    if there:
        serve.delete(NAME)
        if not serve.status().applications:
            serve.shutdown()
    return there


def _needs(ray: Any, asked: str, deployment: Deployment) -> dict[str, Any]:
    """What a replica needs: a GPU where there are any, else its share of a node's cores.

    Raises UserError where the cluster has no room for as many."""
    nodes = [node["Resources"] for node in alive_nodes(ray)]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes) if deployment.with_gpus else 0
    cores = [int(node["CPU"]) for node in nodes]
    most = deployment.replicas.most
    room = gpus or sum(cores)
    if most > room:
        of = "GPUs" if gpus else "cores"
        raise UserError(f"{option('replicas', most)}: the cluster has {room} {of}, and a replica needs one")
    if gpus:
        return {"num_cpus": 1, "num_gpus": 1}
    share = max(cores)
    while sum(core // share for core in cores) < most:
        share -= 1
    return {"num_cpus": share}


def _reason(asked: str, serve: Any, error: Exception) -> str:
    """What a user can mend of a deployment that failed; Ray's own errors are pages long."""
    found = [str(error)]
    for application in serve.status().applications.values():
        found += [application.message, *(made.message for made in application.deployments.values())]
    for text in found:
        if match := re.search(r"UserError: (.+)", text):
            return match[1].replace("\\n", "\n").splitlines()[0].strip().rstrip("'\")")
    return f"{option('on', asked)}: no replica starts: {' '.join(found[0].split())[:300]}"
