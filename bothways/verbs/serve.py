"""`bothways serve MODEL…`: models behind HTTP, with a page to try them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bothways.errors import UserError, install_command
from bothways.precision import InferencePrecision
from bothways.serve.limits import Limits
from bothways.verbs.flags import parse
from bothways.verbs.options import Positional
from bothways.verbs.printing import say

if TYPE_CHECKING:
    from bothways.serve.models import ServedModel

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A request that works, by the first verb of these that a model can answer.
CURL_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "classify": {"texts": "The router has no light."},
    "tag": {"texts": "Anna moved from Oslo to Bergen."},
    "answer": {"question": "What is broken?", "context": "The router has no light, so the fuse is broken."},
    "choose": {"text": "The router has no light.", "choices": ["It has no power.", "It is Tuesday."]},
    "chat": {"messages": "My wifi is slow."},
    "generate": {"prompt": "The router", "max_tokens": 20},
    "fill": {"text": "The router has no [MASK]."},
    "similar": {"query": "slow wifi", "texts": ["the internet is slow", "my bill is wrong"]},
    "embed": {"texts": "The router has no light."},
}


@dataclass(frozen=True)
class ServeArguments:
    """models: runs, Hugging Face directories, shipped models or hub ids; each is called as its directory is; by default
    all shipped ones. name: models with a name of their own, NAME=MODEL.

    host: where to listen; 0.0.0.0 is every network of this machine, for which api_keys or a proxy should stand in
    front. port: 0 takes any that is free. api_keys: a file with a line name:key for each that may ask, readable by its
    owner alone; the variable BOTHWAYS_API_KEYS does as well. cors: origins of other pages that may ask.

    max_requests: that are answered or wait at the same time; others get 429. max_body: bytes of a request. max_texts:
    of a request. max_characters: of a text. timeout: seconds in which a request is answered. drain: seconds for what
    was accepted after SIGTERM. log_texts: write what is asked into the log. quiet: log warnings and errors alone.
    precision: auto is bfloat16 where the hardware multiplies it, else float32; fastest is int8 where it has VNNI.

    on: where replicas of the server run: ray, the Ray cluster of this machine, which is started if there is none; or
    ray://HOST:PORT; by default the server is one process here. replicas: how many, or MIN-MAX, by the tokens that
    wait; 0 ends those that there are.
    """

    models: Positional[tuple[str, ...]] = ()
    name: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: str | None = None
    cors: tuple[str, ...] = ()
    max_requests: int = Limits.max_requests
    max_body: int = Limits.max_body
    max_texts: int = Limits.max_texts
    max_characters: int = Limits.max_characters
    timeout: float = Limits.timeout
    drain: float = Limits.drain
    log_texts: bool = False
    quiet: bool = False
    precision: InferencePrecision = "auto"
    calibrate: str | None = None
    device: str = "auto"
    on: str | None = None
    replicas: str | None = None


def run_serve(arguments: Sequence[str]) -> int:
    """`bothways serve MODEL…`."""
    options = parse(
        "serve", ServeArguments, arguments,
        "Answer requests over HTTP, for programs and for people. Example: bothways serve tickets --port 8080",
    )  # fmt: skip
    if options.replicas is not None and options.on is None:
        raise UserError(f"--replicas {options.replicas}: is of --on ray; without it the server is one process")
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"serve: needs {', '.join(missing)}; {install_command('serve')}")
    if options.on is not None and options.replicas == "0":
        from bothways.verbs.serve_on_ray import end_on_ray

        return end_on_ray(options.on)
    from bothways.serve.keys import read_keys
    from bothways.serve.models import named_models
    from bothways.serve.process import ServerOptions, log_as_json, run_server

    limits = Limits(
        options.max_requests, options.max_body, options.max_texts, options.max_characters, options.timeout,
        options.drain,
    )  # fmt: skip
    keys = read_keys(options.api_keys)
    server = ServerOptions(
        named_models(options.models, options.name), options.host, options.port, limits, keys, options.cors,
        options.log_texts,
        options.device, options.precision, options.calibrate,
    )  # fmt: skip
    if options.host not in LOOPBACK and not keys:
        say(f"serve: {options.host} can be reached from other machines, and no API key is asked for")
    say(f"serve: loading {', '.join(server.models)} …")
    if options.on is not None:
        from bothways.verbs.serve_on_ray import serve_on_ray

        return serve_on_ray(options.on, options.replicas or "1", server, options.quiet)
    log_as_json(options.quiet)
    code = run_server(server, lambda models, address: _say_ready(models, address, bool(keys)))
    say("serve: stopped, all that was accepted is answered" if code == 0 else f"serve: ended with code {code}")
    return code


def _say_ready(models: Mapping[str, ServedModel], address: str, with_keys: bool) -> None:
    from bothways.inference.loaded import precision_in_words

    for model in models.values():
        facts = model.describe()
        say(f"serve: {model.name}: {facts['family']}, {facts['size']}, {', '.join(model.verbs)}")
        say(f"serve: {model.name} runs in {precision_in_words(model.predictor)}")
    print(f"page: {address}/", flush=True)
    print(f"try: {_curl(next(iter(models.values())), address, with_keys)}", flush=True)


def _curl(model: ServedModel, address: str, with_keys: bool) -> str:
    """A command that gets an answer."""
    verb = next(verb for verb in CURL_EXAMPLES if verb in model.verbs)
    fields = dict(CURL_EXAMPLES[verb])
    if verb == "classify" and model.predictor.reads_pairs:
        fields = {"texts": {"text": "The router has no light.", "pair": "It has no power."}}
    body = json.dumps({"model": model.name, **fields}).replace("[MASK]", _mask(model))
    key = " -H 'authorization: Bearer YOUR-KEY'" if with_keys else ""
    return f"curl {address}/v1/{verb}{key} -H 'content-type: application/json' -d '{body}'"


def _mask(model: ServedModel) -> str:
    tokenizer = model.predictor.tokenizer
    return tokenizer.token(tokenizer.mask_id)
