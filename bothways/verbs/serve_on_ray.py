"""`bothways serve … --on ray`: the same server, as replicas on a Ray cluster."""

from __future__ import annotations

import functools
import signal
import threading
from dataclasses import replace

from bothways.cluster.connection import check_address, connected
from bothways.cluster.ray_serve import Deployment, ReplicaCount, deploy, end_deployment
from bothways.errors import UserError
from bothways.serve.process import ServerOptions, listen
from bothways.serve.replica import Replica
from bothways.verbs.parts_arguments import absolute
from bothways.verbs.printing import say


def serve_on_ray(on: str, replicas: str, server: ServerOptions, quiet: bool) -> int:
    """Deploy, and tell where it answers. A cluster that was started for it ends with the command, by a signal; on
    another the replicas stay.

    Raises UserError for what a user can mend.
    """
    address, count = check_address(on), ReplicaCount.read(replicas)
    if server.port == 0:
        raise UserError("--port 0: replicas on Ray need a port that is named; new ones of an update answer there too")
    models = {name: absolute(model) or model for name, model in server.models.items()}
    server = replace(server, models=models, calibrate=absolute(server.calibrate))
    with connected(on) as (ray, started):
        if started:
            listen(server.host, server.port).close()
        deployment = Deployment(
            functools.partial(Replica, server, quiet), count, server.host, server.port,
            server.limits.max_requests, server.limits.drain, with_gpus=server.device != "cpu",
        )  # fmt: skip
        host, port = deploy(ray, on, deployment)
        if (host, port) != (server.host, server.port):
            say(f"serve: Ray Serve listens on {host}:{port} since it was started; --host and --port are left aside")
        shown = address.rpartition(":")[0] or (f"[{host}]" if ":" in host else host)
        say(f"serve: {replicas} replicas of {', '.join(models)} are ready")
        print(f"page: http://{shown}:{port}/", flush=True)
        if not started:
            say("serve: they stay on the cluster; the same command replaces them, --replicas 0 ends them")
            return 0
        _wait_for_signal()
        from ray import serve

        serve.shutdown()
    say("serve: stopped, all that was accepted is answered")
    return 0


def end_on_ray(on: str) -> int:
    """End the replicas that there are. Raises UserError where there are none."""
    check_address(on)
    with connected(on) as (_, started):
        if started or not end_deployment(on):
            raise UserError(f"--on {on} --replicas 0: nothing is served there")
    say("serve: the replicas have ended, all that was accepted is answered")
    return 0


def _wait_for_signal() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
