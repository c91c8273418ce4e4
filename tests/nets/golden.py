"""Golden files, and the command line as a function."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from bothways.cli import main

FIXTURES = Path(__file__).parent / "fixtures"
# The same sums in the same order, on every CPU that has AVX2. Is read when torch is imported.
PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


def run(*arguments: object) -> str:
    """What one command line prints. Raises AssertionError where it fails."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
    assert code == 0, f"bothways {' '.join(map(str, arguments))}: exit {code}\n{out.getvalue()}{errors.getvalue()}"
    return out.getvalue()


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def check(name: str, text: str, by: str) -> None:
    """`text` is what fixtures/`name` holds. by: the name under which `regenerate` writes it."""
    _compare(name, (FIXTURES / name).read_text(encoding="utf-8"), text, by)


def check_values(name: str, values: Any, by: str, tolerance: float = 1e-4) -> None:
    """As `check` for JSON: floats may differ by the tolerance, all else is exact."""
    golden = json.loads((FIXTURES / name).read_text(encoding="utf-8"))
    values = json.loads(as_rounded_json(values))
    if not alike(golden, values, tolerance):
        _compare(name, as_json(golden), as_json(_taken_over(golden, values, tolerance)), by)


def alike(golden: Any, value: Any, tolerance: float) -> bool:
    """Whether two values out of JSON are the same but for rounding."""
    if isinstance(golden, float) and isinstance(value, float):
        return golden == value or abs(golden - value) <= tolerance * max(1.0, abs(golden))
    if isinstance(golden, dict) and isinstance(value, dict):
        return list(golden) == list(value) and all(alike(golden[key], value[key], tolerance) for key in golden)
    if isinstance(golden, list) and isinstance(value, list):
        return len(golden) == len(value) and all(map(alike, golden, value, [tolerance] * len(golden)))
    return type(golden) is type(value) and bool(golden == value)


def as_json(values: Any) -> str:
    """Values as a golden file has them; dataclasses are objects."""
    return json.dumps(values, indent=1, ensure_ascii=False, default=_plain) + "\n"


def as_rounded_json(values: Any) -> str:
    """As `as_json`, floats to six decimals."""
    return as_json(json.loads(as_json(values), parse_float=lambda digits: round(float(digits), 6)))


def write(name: str, text: str) -> None:
    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value.tolist()


def _taken_over(golden: Any, value: Any, tolerance: float) -> Any:
    """The value with the golden number wherever it is near enough, so that a diff shows what matters."""
    if isinstance(golden, dict) and isinstance(value, dict):
        return {key: _taken_over(golden.get(key), value[key], tolerance) for key in value}
    if isinstance(golden, list) and isinstance(value, list) and len(golden) == len(value):
        return [_taken_over(one, other, tolerance) for one, other in zip(golden, value, strict=True)]
    return golden if alike(golden, value, tolerance) else value


def _compare(name: str, golden: str, text: str, by: str) -> None:
    if golden == text:
        return
    lines = difflib.unified_diff(golden.splitlines(), text.splitlines(), f"golden {name}", "now", lineterm="", n=2)
    shown = "\n".join(list(lines)[:200])
    raise AssertionError(
        f"{shown}\n\n{name} is not what it was. If that is meant: python -m tests.nets.regenerate {by}"
    )
