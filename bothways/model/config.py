"""An encoder's hyperparameters under their Hugging Face names, and the named sizes."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bothways.errors import UserError, closest, option
from bothways.option_checks import require_type

# Turc et al. 2019 (arXiv:1908.08962), table 1, for tiny to medium; Devlin et al. 2018, section 3, for base and large.
# name: (num_hidden_layers, hidden_size, intermediate_size, num_attention_heads)
SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny": (2, 128, 512, 2),
    "mini": (4, 256, 1024, 4),
    "small": (4, 512, 2048, 8),
    "medium": (8, 512, 2048, 8),
    "base": (12, 768, 3072, 12),
    "large": (24, 1024, 4096, 16),
    "vanilla": (6, 512, 2048, 8),  # Vaswani et al. 2017, table 3, base
}

POSITIONS = ("learned", "sinusoidal")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
# Lowest and highest. 2^24 is a thousand times BERT-large's; products of two still fit 64 bits. No published transformer
# is deeper than 1,000 layers (DeepNet, arXiv:2203.00555).
_SIZE_RANGE = (1, 1 << 24)
SIZE_RANGES: dict[str, tuple[int, int]] = {
    "vocab_size": _SIZE_RANGE,
    "hidden_size": _SIZE_RANGE,
    "num_hidden_layers": (1, 1000),
    "num_attention_heads": _SIZE_RANGE,
    "intermediate_size": _SIZE_RANGE,
    "max_position_embeddings": (8, 1 << 24),
    "type_vocab_size": _SIZE_RANGE,
}
# Keys of a config.json that change what a model computes and are not read, with the values that change nothing.
FOREIGN_KEYS: dict[str, tuple[Any, ...]] = {
    "quantization_config": (),
    "pruned_heads": ({},),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The hyperparameters of a BERT encoder, named as in a Hugging Face `config.json`; the defaults are BERT-base's.

    is_decoder: each token sees itself and those before it only, so that the model can be trained from left to right.
    positions: `learned`, or `sinusoidal`, a fixed table.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    is_decoder: bool = False
    positions: str = "learned"

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            require_type(name, getattr(self, name), hint)
        for name, (least, most) in SIZE_RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise UserError(f"{name} {getattr(self, name)}: expected at least {least}, at most {most}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{name} ({option('dropout')}) {value}: expected a probability, 0 to below 1")
        for name in ("initializer_range", "layer_norm_eps"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: expected 0 to below 1")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        for name, accepted in (("hidden_act", ACTIVATIONS), ("positions", POSITIONS)):
            if getattr(self, name) not in accepted:
                raise UserError(f"{name} {getattr(self, name)!r} is not supported; accepted: {', '.join(accepted)}")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> EncoderConfig:
        """Builds a named size: tiny, mini, small, medium, base, large or vanilla (a `bert-` prefix is accepted).

        Raises UserError for another name.
        """
        name = size.removeprefix("bert-")
        if name not in SIZES:
            raise UserError(f"{option('size', size)}: expected one of {', '.join(SIZES)}{closest(name, SIZES)}")
        layers, hidden, intermediate, heads = SIZES[name]
        return cls(
            num_hidden_layers=layers,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_attention_heads=heads,
            **overrides,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str | Path = "config.json") -> EncoderConfig:
        """Read a Hugging Face `config.json`; keys that are not ours are ignored, what we cannot run is an error.

        path: of the file, for messages. Raises UserError for another `model_type`, for relative position embeddings,
        for keys that change what the model computes and are not ours (`FOREIGN_KEYS`), and for values that cannot be.
        """
        model_type = values.get("model_type", "bert")
        if model_type != "bert":
            raise UserError(f"{path} has model_type {model_type!r}; accepted: 'bert'")
        positions = values.get("position_embedding_type", "absolute")
        if positions != "absolute":
            raise UserError(f"{path} has position_embedding_type {positions!r}; accepted: 'absolute'")
        for key, harmless in FOREIGN_KEYS.items():
            if values.get(key) not in (None, *harmless):
                raise UserError(f"{path} has {key} {str(values[key])[:60]}, which is not read")
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{key: value for key, value in values.items() if key in known})
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The keys of a Hugging Face `config.json` that describe the encoder."""
        return {"model_type": "bert", "position_embedding_type": "absolute", **dataclasses.asdict(self)}
