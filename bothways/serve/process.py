"""The process of a server: its socket, its models loaded behind it, its signals, and its end."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType

import uvicorn

from bothways.errors import UserError, option, options_as_flags
from bothways.precision import InferencePrecision
from bothways.predictor import load
from bothways.serve.app import make_app
from bothways.serve.keys import Keys
from bothways.serve.limits import Limits
from bothways.serve.metrics import Metrics
from bothways.serve.models import ServedModel, served_model
from bothways.serve.service import Service

BACKLOG = 2048  # connections that wait to be accepted
KEEP_ALIVE = 30  # seconds that an idle connection stays open
CRASHED = 70  # the exit code after a crash of the engine, EX_SOFTWARE
LOG_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


@dataclass(frozen=True)
class ServerOptions:
    """models: what is served, by name. keys: that are accepted, none for everybody. cors: origins of other
    pages. log_texts: whether the log has what is asked. calibrate: a file of texts to measure int8 on."""

    models: Mapping[str, str]
    host: str
    port: int
    limits: Limits
    keys: Keys
    cors: tuple[str, ...]
    log_texts: bool
    device: str
    precision: InferencePrecision
    calibrate: str | None


class _Server(uvicorn.Server):
    """uvicorn, whose first signal drains and whose second one stops; it exits with 0 where all was answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        elif self._service.state in ("loading", "ready"):
            self._service.state = "draining"
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UserError for a port in use, or one that must not be used, and for a host
    that is none of this machine."""
    if not 0 <= port <= 65535:
        raise UserError(f"{option('port', port)}: expected 0 to 65535, 0 for any that is free")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"{option('port', port)}: in use on {host}; choose another, or 0 for any") from error
        raise UserError(f"{option('host', host)} {option('port', port)}: {error.strerror or error}") from error
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def run_server(options: ServerOptions, on_ready: Callable[[Mapping[str, ServedModel], str], None]) -> int:
    """Serve until a signal ends it; the exit code.

    on_ready: called with the models and the address when the models are loaded; until then requests get 503.
    Raises UserError for a port in use, and for a model that cannot be loaded.
    """
    listening = listen(options.host, options.port)
    service = Service(options.limits, Metrics())
    config = uvicorn.Config(
        make_app(service, options.keys, options.cors, options.log_texts),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(options.limits.drain)),
        lifespan="on",
    )
    server = _Server(config, service)
    failures: list[BaseException] = []
    spelled = contextlib.ExitStack()

    def end(code: int) -> None:
        failures.append(SystemExit(code))
        server.should_exit = True

    service.on_crash = lambda: end(CRASHED)
    name, port = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name

    def open_models() -> None:
        try:
            models = load_models(options)
            spelled.enter_context(options_as_flags(False))  # what a request is told names fields
            if service.state == "loading":
                service.open(models)
                on_ready(models, f"http://{shown}:{port}")
        except BaseException as error:
            failures.append(error)
            server.should_exit = True

    loading = threading.Thread(target=open_models, name="bothways-loading", daemon=True)
    loading.start()
    with spelled:
        try:
            server.run(sockets=[listening])
        finally:
            service.close()
    for failure in failures:
        if isinstance(failure, SystemExit):
            return int(failure.code or 0)
        raise failure
    return 0


def load_models(options: ServerOptions) -> dict[str, ServedModel]:
    """The models, warm. Raises UserError for one that cannot be loaded."""
    models = {}
    for name, source in options.models.items():
        models[name] = served_model(name, load(source, options.device, options.precision, options.calibrate))
        models[name].warm_up()
    return models


class JsonLines(logging.Formatter):
    """A record as a line of JSON: time, level, what is said, and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        told = {name: value for name, value in vars(record).items() if name not in LOG_FIELDS}
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {"message": record.getMessage(), **told}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json(quiet: bool) -> None:
    """Let the server's log be lines of JSON on standard error. quiet: only warnings and what is worse."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("bothways.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if quiet or name == "uvicorn" else logging.INFO)
