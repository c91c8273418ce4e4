"""Whether a config and a file of weights belong together, found out before memory is taken for the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bothways.checkpoint.names import modern_names, their_names, tied_to
from bothways.errors import UserError
from bothways.model.assembly import build_encoder
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, Model


def require_fit(
    directory: Path,
    config: EncoderConfig,
    head: Callable[[Encoder], Head],
    weights: Mapping[str, Tensor],
    ignored: str | None = None,
) -> None:
    """Compare the sizes that the config asks for with those of the weights; names that are missing are left to others.

    ignored: a module of ours that need not fit. Raises UserError for other sizes, another number of layers, and
    weights that are no floating-point numbers, NaN or infinite.
    """
    path = directory / "config.json"
    held = {modern: weights[name] for name, modern in modern_names(weights).items()}
    numbers = (re.match(r"bert\.encoder\.layer\.(\d{1,9})\.", name) for name in held)
    layers = max((int(number[1]) + 1 for number in numbers if number), default=config.num_hidden_layers)
    if layers != config.num_hidden_layers:
        raise UserError(
            f"{path} does not fit the weights: it has num_hidden_layers {config.num_hidden_layers}, the file holds "
            f"{layers}"
        )
    with torch.device("meta"):  # sizes alone
        encoder = build_encoder(config)
        wanted = Model(encoder, head(encoder)).state_dict()
    for name, tensor in wanted.items():
        if tied_to(name) is not None or (ignored and name.startswith(ignored)):
            continue
        parts = their_names(name)
        shape = [tensor.shape[0] // len(parts), *tensor.shape[1:]]
        for part in parts:
            if part in held and list(held[part].shape) != shape:
                raise UserError(
                    f"{path} does not fit the weights: it asks for {part} of shape {shape}, the file holds "
                    f"{list(held[part].shape)}"
                )
            if part in held and not held[part].is_floating_point():
                raise UserError(f"{directory}: {part} is of {held[part].dtype}; quantised weights are not read")
            if part in held and not torch.isfinite(held[part]).all():
                raise UserError(
                    f"{directory}: {part} holds NaN or infinity: the file is damaged, or its training has diverged"
                )
