"""All that the nets import from inside Bothways; a move of these names has its lines to change here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bothways as bw
from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.train.run import RunDirectory


class DiedError(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL."""


def save(model: bw.Predictor, directory: Path) -> None:
    """Write a loaded model as a Hugging Face directory."""
    save_checkpoint(model.checkpoint, directory)


@contextlib.contextmanager
def stopped_at_first_checkpoint() -> Iterator[None]:
    """A training that dies as soon as its first checkpoint is complete. Only `regenerate` does this."""
    written = RunDirectory.save_checkpoint

    def write_and_die(self: RunDirectory, *arguments: Any) -> None:
        written(self, *arguments)
        raise DiedError

    with patch.object(RunDirectory, "save_checkpoint", write_and_die), contextlib.suppress(DiedError):
        yield
