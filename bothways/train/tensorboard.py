"""TensorBoard's files of a run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bothways.errors import UserError, install_command, option


def require_tensorboard() -> None:
    """Raises UserError where TensorBoard, part of the `report` extra, is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(f"{option('tensorboard')}: needs the tensorboard package: {install_command('report')}")


def tensorboard_writer(run: Path, step: int) -> Any:
    """A writer into RUN/tensorboard of a run that goes on after `step`; what was written of later steps is dropped."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
