"""Whether a config and a file of weights belong together, found out before memory is taken for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bothways.checkpoint.names import NameTable
from bothways.errors import UserError
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.families import FAMILIES, build_encoder
from bothways.model.families.base import TOKEN_TABLE, Family
from bothways.model.heads import Head, Model


class _WithoutValues(TorchFunctionMode):
    """Within it modules get no initial values. On the meta device torch asks its compiler for them, whose import takes
    longer than all else that opens a model."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if function in (nn.init.normal_, nn.init.kaiming_uniform_, nn.init.uniform_):
            return args[0] if args else given["tensor"]
        return function(*args, **given)


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
    with torch.device("meta"), _WithoutValues():  # sizes alone
        encoder = build_encoder(config)
        model = Model(encoder, head(encoder))
    table = NameTable(FAMILIES[config.model_type], model.head.kind)
    _require_family(path, table.family, weights)
    held = {modern: weights[name] for name, modern in table.modern_names(weights).items()}
    layers = max(table.layer_numbers(held), default=len(encoder.layers) - 1) + 1
    if layers != len(encoder.layers):
        key = "num_hidden_groups" if len(encoder.layers) < len(encoder.order) else config.key("num_hidden_layers")
        raise UserError(f"{path} does not fit the weights: it has {key} {len(encoder.layers)}, the file holds {layers}")
    for name, tensor in model.state_dict().items():
        if table.tied_to(name) is not None or (ignored and name.startswith(ignored)):
            continue
        parts = table.their_names(name)
        shape = [tensor.shape[0] // len(parts), *tensor.shape[1:]]
        for part in parts:
            _require_part(directory, part, held.get(part), shape[::-1] if table.is_transposed(name) else shape)


def _require_family(path: Path, family: Family, weights: Mapping[str, Tensor]) -> None:
    """Raises UserError where the weights' names are another family's."""

    def holds_tokens(other: Family) -> bool:
        table = NameTable(other, "encoder")
        return bool(table.from_hugging_face(weights, {TOKEN_TABLE: torch.empty(0)})[0])

    others = [other.title for other in FAMILIES.values() if holds_tokens(other)]
    if others and not holds_tokens(family):
        raise UserError(f"{path}: model_type is {family.name!r}, but the weights have the names of {others[0]}'s")


def _require_part(directory: Path, part: str, tensor: Tensor | None, shape: list[int]) -> None:
    if tensor is None:
        return
    if list(tensor.shape) != shape:
        raise UserError(
            f"{directory / 'config.json'} does not fit the weights: it asks for {part} of shape {shape}, the file "
            f"holds {list(tensor.shape)}"
        )
    if not tensor.is_floating_point():
        raise UserError(f"{directory}: {part} is of {tensor.dtype}; quantised weights are not read")
    if not torch.isfinite(tensor).all():
        raise UserError(f"{directory}: {part} holds NaN or infinity: the file is damaged, or its training has diverged")
