"""`bothways bench M`: how fast a model is on this machine, at each precision it can run in."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np
import torch

from bothways.data.encoded import Encoded, join_segments
from bothways.data.tables import read_rows
from bothways.errors import UserError
from bothways.files import to_json
from bothways.inference.prepared import describe_layers
from bothways.inference.vectors import sequence_vectors
from bothways.precision import PRECISIONS, InferencePrecision, choose_inference_precision
from bothways.predictor import Predictor
from bothways.verbs.flags import parse
from bothways.verbs.model_argument import load_model
from bothways.verbs.options import ModelToAsk
from bothways.verbs.printing import say, table_lines
from bothways.verbs.screen import screen_width

LATENCY_TOKENS = (16, 128)  # of the texts whose latency is measured: a question, and a paragraph


@dataclass(frozen=True)
class InferenceSpeed:
    """How fast a model is in a precision.

    runs_on: precision and layers. tokens_per_second: of many texts of all lengths, without tokenising. latency:
    milliseconds of a single text, by its tokens: median and 99th percentile. cosine: the least of a text's vector with
    the vector of the model itself, in float32.
    """

    precision: InferencePrecision
    runs_on: str
    tokens_per_second: float
    latency: dict[int, tuple[float, float]]
    cosine: float


@dataclass(frozen=True)
class BenchArguments:
    """seconds: of measuring throughput, at each precision."""

    model: ModelToAsk = None
    seconds: float = 5.0
    json: bool = False
    device: str = "auto"


def run_bench(arguments: Sequence[str]) -> None:
    """`bothways bench M`."""
    options = parse(
        "bench", BenchArguments, arguments, "Measure a model on this machine. Example: bothways bench tickets"
    )
    if not 0 < options.seconds < 1e6:
        raise UserError(f"--seconds {options.seconds}: expected a number above 0")
    model = load_model("bench", options, "float32")
    texts = mixed_texts()
    began = time.perf_counter()
    encoded = join_segments(model.tokenizer, texts, model.sequence_length)
    seconds = time.perf_counter() - began
    tokens = sum(len(text.input_ids) for text in encoded)
    vectors = np.array(sequence_vectors(model, encoded))
    speeds = []
    for precision in offered_precisions(model.device):
        say(f"bench: {precision}")
        asked = Predictor(model.checkpoint, options.device, precision)
        try:
            speeds.append(_measured(asked, encoded, vectors, options.seconds))
        except UserError as error:  # int8 where it does not pay; the reason stands behind the option's name
            say(f"bench: {precision} is left out: {str(error).partition(': ')[2] or error}")
    facts = {
        "device": _device(model.device), "texts": len(texts), "tokens": tokens,
        "tokenising_tokens_per_second": tokens / seconds,
    }  # fmt: skip
    if options.json:
        print(to_json({**facts, "precisions": [asdict(speed) for speed in speeds]}))
        return
    _show(facts, speeds)


def offered_precisions(device: torch.device) -> list[InferencePrecision]:
    """The precisions that make sense on a device: float32, bfloat16 where the hardware multiplies it, int8 on a CPU."""
    half = choose_inference_precision("auto", device) == "bfloat16"
    skipped = {"bfloat16": not half, "int8": device.type != "cpu"}
    return [precision for precision in PRECISIONS if not skipped.get(precision)]


def mixed_texts() -> list[str]:
    """Six hundred texts from a line to a page, out of the packaged help desk."""
    with resources.as_file(resources.files("bothways") / "samples" / "helpdesk") as folder:
        lines = [row.text("text") for row in read_rows(folder / "tickets-train.jsonl")]
        pages = list(dict.fromkeys(row.text("context") for row in read_rows(folder / "questions-train.json")))
    return [pages[number % len(pages)] if number % 3 == 0 else lines[number % len(lines)] for number in range(600)]


def _measured(model: Predictor, encoded: list[Encoded], exact: np.ndarray, seconds: float) -> InferenceSpeed:
    vectors = np.array(sequence_vectors(model, encoded))
    tokens, runs, began = sum(len(text.input_ids) for text in encoded), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        sequence_vectors(model, encoded)
        runs += 1
    rate = tokens * runs / (time.perf_counter() - began)
    return InferenceSpeed(
        model.precision,
        describe_layers(model.for_prediction, model.precision),
        rate,
        latencies(model),
        float((vectors * exact).sum(1).min()),
    )


def latencies(model: Predictor) -> dict[int, tuple[float, float]]:
    """Milliseconds of one text, warm, by its tokens: median and 99th percentile."""
    found = {}
    for length in LATENCY_TOKENS:
        text = "a " * (min(length, model.sequence_length) - 2)
        found[length] = percentiles(lambda text=text: model.embed(text))  # type: ignore[misc]
    return found


def percentiles(call: Callable[[], Any], times: int = 100) -> tuple[float, float]:
    """Milliseconds of a call: median and 99th percentile, after ten calls that are not counted."""
    for _ in range(10):
        call()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1e3)
    return float(np.median(taken)), float(np.quantile(taken, 0.99))


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def _show(facts: dict[str, Any], speeds: Sequence[InferenceSpeed]) -> None:
    heads = ["precision", "tokens/s", *(f"one text of {n} tokens, ms (p99)" for n in LATENCY_TOKENS), "cosine"]
    rows = []
    for speed in speeds:
        times = (f"{median:.1f} ({slow:.1f})" for median, slow in speed.latency.values())
        rows.append([speed.runs_on, f"{speed.tokens_per_second:,.0f}", *times, f"{speed.cosine:.5f}"])
    best = max(speeds, key=lambda speed: speed.tokens_per_second)
    share = best.tokens_per_second / facts["tokenising_tokens_per_second"]
    conditions = (
        f"{facts['device']}; {facts['texts']} texts, {facts['tokens']:,} tokens. Tokenising alone: "
        f"{facts['tokenising_tokens_per_second']:,.0f} tokens/s, {share:.1%} of the time of {best.precision}, done "
        "meanwhile. cosine: the least of a text's vector with that in float32."
    )
    print("\n".join([*table_lines(heads, rows), *textwrap.wrap(conditions, screen_width())]))
