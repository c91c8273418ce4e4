"""One of several processes that answer the same requests, each with the models, the batches and the application of a
server of its own. What starts it, and what listens, is another's work."""

from __future__ import annotations

import logging

from bothways.errors import options_as_flags
from bothways.inference.loaded import precision_in_words
from bothways.serve.app import make_app
from bothways.serve.failures import RequestError
from bothways.serve.metrics import Metrics
from bothways.serve.process import ServerOptions, load_models, log_as_json
from bothways.serve.service import Service

_LOGGER = logging.getLogger("bothways.serve")


class Replica:
    """app: its application (ASGI)."""

    def __init__(self, options: ServerOptions, quiet: bool) -> None:
        """Load the models. Raises UserError for one that cannot be loaded."""
        log_as_json(quiet)
        models = load_models(options)
        for name, model in models.items():
            _LOGGER.info("loaded", extra={"model": name, "precision": precision_in_words(model.predictor)})
        self._spelled = options_as_flags(False)
        self._spelled.__enter__()  # for the time of the process
        self._service = Service(options.limits, Metrics())
        self._service.open(models)
        self.app = make_app(self._service, options.keys, options.cors, options.log_texts)

    def waiting_batches(self) -> float:
        """How many full batches the tokens that wait for the engine make."""
        return self._service.waiting_batches()

    def require_alive(self) -> None:
        """Raises RequestError where the engine has crashed."""
        if self._service.state == "stopped":
            raise RequestError("stopped", "the engine has crashed")
