"""sentence-transformers' modules behind an encoder, from their folders and back: Pooling, Dense, Normalize.

A folder has `config.json` and, of a Dense, its weights. No class is imported by a name in a file: what is known stands
in the tables here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bothways.checkpoint.weights import read_weights
from bothways.errors import UserError
from bothways.files import read_json, write_json
from bothways.model.pooling import POOLINGS, Dense, Normalize, Pooling, TokenPooling
from bothways.model.task_heads import EmbeddingHead

# The switches of older files, in the order in which their vectors stand beside each other.
POOLING_SWITCHES: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ALWAYS_WRITTEN = ("pooling_mode_mean_tokens", "pooling_mode_cls_token")  # their defaults differ between versions
# Functions without parameters of their own, which sentence-transformers makes without arguments.
TORCH_ACTIVATIONS: dict[str, type[nn.Module]] = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (
        nn.Identity, nn.Tanh, nn.Sigmoid, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
        nn.Mish, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
    )
}  # fmt: skip
MODULE_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
MAX_SIZE = 1 << 24  # of a vector; more is no size but a damaged file
VECTOR_NAME = "sentence_embedding"  # what a module behind the pooling reads and writes


@dataclass(frozen=True)
class VectorModules:
    """What stands on an encoder. projections: between pooling and the last normalisation, as what makes each of them.
    weights: those of the projections, by our names in the whole model."""

    modes: tuple[Pooling, ...]
    normalize: bool
    include_prompt: bool = True
    projections: tuple[Callable[[], nn.Module], ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def head(self) -> EmbeddingHead:
        """The head, whose weights are not those of the file yet."""
        pooling = TokenPooling(self.modes, self.include_prompt)
        return EmbeddingHead(pooling, self.normalize, [make() for make in self.projections])


@dataclass(frozen=True)
class _DenseForm:
    """What a Dense's config says of it."""

    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool

    def make(self) -> Dense:
        linear = nn.Linear(self.in_features, self.out_features, self.bias)
        residual = nn.Identity() if self.in_features == self.out_features else self._plain()
        return Dense(linear, TORCH_ACTIVATIONS[self.activation](), residual if self.residual else None)

    def _plain(self) -> nn.Linear:
        return nn.Linear(self.in_features, self.out_features, bias=False)


def read_vector_modules(folders: Sequence[tuple[str, Path]], hidden_size: int) -> VectorModules:
    """The modules by kind and folder, `Pooling` first. hidden_size: of the encoder.

    Raises UserError for a pooling, an activation, sizes or weights that cannot be.
    """
    (_, first), *rest = folders
    modes, include_prompt = _pooling(first / "config.json")
    width = hidden_size * len(modes)
    normalize = bool(rest) and rest[-1][0] == "Normalize"
    projections: list[Callable[[], nn.Module]] = []
    weights: dict[str, Tensor] = {}
    for kind, folder in rest:
        config = folder / "config.json"
        said = read_json(config) if config.exists() else {}
        _require_vector(config, said)
        if kind == "Normalize":
            projections.append(Normalize)
            continue
        form = _dense_form(config, said, width)
        own = _dense_weights(folder, form)
        weights |= {f"head.projections.{len(projections)}.{name}": tensor for name, tensor in own.items()}
        projections.append(form.make)
        width = form.out_features
    return VectorModules(modes, normalize, include_prompt, tuple(projections[: -1 if normalize else None]), weights)


def _pooling(path: Path) -> tuple[tuple[Pooling, ...], bool]:
    """Its modes, by name in newer files, by switches in older ones, and whether a prompt's tokens are pooled."""
    config = read_json(path)
    named = config.get("pooling_mode")
    if named is not None:
        modes = list(named) if isinstance(named, list) else [named]
    else:
        on = [key for key, value in config.items() if key.startswith("pooling_mode") and value]
        known = [mode for key, mode in POOLING_SWITCHES.items() if key in on]
        modes = [*known, *(key for key in on if key not in POOLING_SWITCHES)]
    if not modes or any(mode not in POOLINGS for mode in modes):
        found = ", ".join(str(mode)[:60] for mode in modes) or "nothing"
        raise UserError(f"{path}: pools by {found}; read are {', '.join(POOLINGS)}")
    return tuple(modes), bool(config.get("include_prompt", True))


def _require_vector(path: Path, said: Mapping[str, Any]) -> None:
    """Raises UserError for a module that reads or writes something else than the text's vector."""
    for name in ("module_input_name", "module_output_name"):
        if said.get(name) not in (None, VECTOR_NAME):
            raise UserError(f"{path}: {name} is {str(said[name])[:60]!r}; read is {VECTOR_NAME!r}")


def activation_name(path: Path, named: Any) -> str:
    """The key in `TORCH_ACTIVATIONS` of a class that a file names, also as `torch.nn.Tanh`. Raises UserError for
    others."""
    short = {f"torch.nn.{known.rpartition('.')[2]}": known for known in TORCH_ACTIVATIONS}
    name = short.get(str(named), str(named))
    if name not in TORCH_ACTIVATIONS:
        known = ", ".join(known.rpartition(".")[2] for known in TORCH_ACTIVATIONS)
        raise UserError(f"{path}: the activation is {str(named)[:80]!r}; read are torch's {known}")
    return name


def _dense_form(path: Path, said: Mapping[str, Any], width: int) -> _DenseForm:
    size: Any = said.get("out_features")
    if type(size) is not int or not 0 < size < MAX_SIZE:
        raise UserError(f"{path}: out_features is {str(size)[:60]!a}, expected a size")
    if said.get("in_features") != width:
        found = str(said.get("in_features"))[:60]
        raise UserError(f"{path}: in_features is {found}, and the vectors that come to it have {width} numbers")
    activation = activation_name(path, said.get("activation_function", "torch.nn.modules.activation.Tanh"))
    return _DenseForm(width, size, bool(said.get("bias", True)), activation, bool(said.get("use_residual", False)))


def _dense_weights(folder: Path, form: _DenseForm) -> dict[str, Tensor]:
    """A Dense's weights. Raises UserError where they are not those that its config asks for, or no numbers."""
    found = read_weights(folder)
    with torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in form.make().state_dict().items()}
    shapes = {name: list(tensor.shape) for name, tensor in found.items()}
    if shapes != wanted:
        raise UserError(f"{folder}: the weights are {str(shapes)[:200]}, and config.json asks for {wanted}")
    for name, tensor in found.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise UserError(f"{folder}: {name} holds NaN or infinity, or no floating-point numbers")
    return found


def vector_module_configs(head: EmbeddingHead, hidden_size: int) -> list[tuple[str, dict[str, Any]]]:
    """The modules of a head in order, each by its kind with what its `config.json` has."""
    listed: list[tuple[str, dict[str, Any]]] = [("Pooling", _pooling_config(head.pool, hidden_size))]
    for module in head.projections:
        listed.append(("Dense", _dense_config(module)) if isinstance(module, Dense) else ("Normalize", {}))
    return [*listed, *([("Normalize", {})] if head.normalize else [])]


def write_vector_module(folder: Path, kind: str, config: Mapping[str, Any], module: nn.Module | None) -> None:
    """Make a module's folder. module: of a Dense, whose weights are written."""
    folder.mkdir()
    if kind != "Normalize":
        write_json(folder / "config.json", config)
    if isinstance(module, Dense):
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _pooling_config(pool: TokenPooling, hidden_size: int) -> dict[str, Any]:
    """In switches, which every version reads, where their order is the one of the modes."""
    prompt = {} if pool.include_prompt else {"include_prompt": False}
    if tuple(mode for mode in POOLING_SWITCHES.values() if mode in pool.modes) != pool.modes:
        return {"embedding_dimension": hidden_size, "pooling_mode": list(pool.modes), **prompt}
    switches = {key: POOLING_SWITCHES[key] in pool.modes for key in ALWAYS_WRITTEN}
    active = {key: True for key, mode in POOLING_SWITCHES.items() if mode in pool.modes}
    return {"word_embedding_dimension": hidden_size, **switches, **active, **prompt}


def _dense_config(module: Dense) -> dict[str, Any]:
    kind = type(module.activation)
    return {
        "in_features": module.linear.in_features,
        "out_features": module.linear.out_features,
        "bias": module.linear.bias is not None,
        "activation_function": f"{kind.__module__}.{kind.__name__}",
        **({} if module.residual is None else {"use_residual": True}),
    }
