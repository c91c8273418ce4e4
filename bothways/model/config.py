"""An encoder's hyperparameters under their Hugging Face names, and the named sizes."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

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
SIZE_RANGE = (1, 1 << 24)
SIZE_RANGES: dict[str, tuple[int, int]] = {
    "vocab_size": SIZE_RANGE,
    "hidden_size": SIZE_RANGE,
    "num_hidden_layers": (1, 1000),
    "num_attention_heads": SIZE_RANGE,
    "intermediate_size": SIZE_RANGE,
    "max_position_embeddings": (8, 1 << 24),
    "type_vocab_size": SIZE_RANGE,
}
REMOTE_CODE = "auto_map"  # the key that names classes in a model's own directory
# Keys of a config.json that change what a model computes and are not read, with the values that change nothing.
FOREIGN_KEYS: dict[str, tuple[Any, ...]] = {
    "quantization_config": (),
    "pruned_heads": ({},),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "position_embedding_type": ("absolute",),
    REMOTE_CODE: (),
}
REPLACED_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")  # by the option `dropout` of training
# Keys that are made anew when a model is written: they speak of a head, of labels, or of whoever wrote the file.
OWN_KEYS = (
    *("architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "_name_or_path"),
    *("id2label", "label2id", "num_labels", "problem_type", "tokenizer_class", "finetuning_task"),
)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The hyperparameters of an encoder, named as in BERT's Hugging Face `config.json`; the defaults are BERT-base's.
    Every family of models has a class of its own, with what only that family has; this one is BERT's.

    is_decoder: each token sees itself and those before it only, so that the model can be trained from left to right.
    positions: `learned`, or `sinusoidal`, a fixed table. other: what else the file said, which is written again.

    model_type: the family's name in config.json. keys: the family's names of our fields where they are others; None for
    what its file does not have. foreign_keys: its keys that are not read, each with the values that change nothing.
    size_ranges: least and most of its whole numbers. constants: keys that are written with these values.
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
    other: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    model_type: ClassVar[str] = "bert"
    keys: ClassVar[Mapping[str, str | None]] = {}
    foreign_keys: ClassVar[Mapping[str, tuple[Any, ...]]] = FOREIGN_KEYS
    size_ranges: ClassVar[Mapping[str, tuple[int, int]]] = SIZE_RANGES
    constants: ClassVar[Mapping[str, Any]] = {"position_embedding_type": "absolute"}

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            if field.name != "other":
                require_type(self.key(field.name), getattr(self, field.name), hints[field.name])
        for name, (least, most) in self.size_ranges.items():
            if not least <= getattr(self, name) <= most:
                raise UserError(f"{self.key(name)} {getattr(self, name)}: expected at least {least}, at most {most}")
        for name in (name for name in hints if "drop" in name):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                asked = f" ({option('dropout')})" if name in REPLACED_DROPOUTS else ""
                raise UserError(f"{self.key(name)}{asked} {value}: expected a probability, 0 to below 1")
        for name in ("initializer_range", "layer_norm_eps"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{self.key(name)} {getattr(self, name)}: expected 0 to below 1")
        if self.hidden_size % self.num_attention_heads:
            heads = self.key("num_attention_heads")
            raise UserError(
                f"{self.key('hidden_size')} {self.hidden_size} is not a multiple of {heads} {self.num_attention_heads}"
            )
        for name, accepted in (("hidden_act", ACTIVATIONS), ("positions", POSITIONS)):
            if getattr(self, name) not in accepted:
                raise UserError(
                    f"{self.key(name)} {getattr(self, name)!r} is not supported; accepted: {', '.join(accepted)}"
                )

    def with_dropout(self, probability: float) -> Self:
        """The same hyperparameters with this probability for hidden states and attention."""
        chosen: dict[str, Any] = dict.fromkeys(REPLACED_DROPOUTS, probability)
        return dataclasses.replace(self, **chosen)

    @classmethod
    def key(cls, field: str) -> str:
        """The name that the family's config.json has for a field of ours; our own where it has none."""
        return cls.keys.get(field, field) or field

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def max_sequence_length(self) -> int:
        """Tokens that a sequence may have, `[CLS]` and `[SEP]` included."""
        return self.max_position_embeddings

    @classmethod
    def sizes(cls, layers: int, hidden_size: int, intermediate_size: int, heads: int) -> dict[str, Any]:
        """The family's fields of a model of such a shape, a row of `SIZES`."""
        return {
            "num_hidden_layers": layers,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_attention_heads": heads,
        }

    def with_layers(self, numbers: Sequence[int]) -> Self:
        """The hyperparameters of a model of these layers alone, counted from 0."""
        return dataclasses.replace(self, num_hidden_layers=len(numbers))

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> Self:
        """Builds a named size: tiny, mini, small, medium, base, large or vanilla (a `bert-` prefix is accepted).

        Raises UserError for another name.
        """
        name = size.removeprefix("bert-")
        if name not in SIZES:
            raise UserError(f"{option('size', size)}: expected one of {', '.join(SIZES)}{closest(name, SIZES)}")
        return cls(**{**cls.sizes(*SIZES[name]), **overrides})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str | Path = "config.json") -> Self:
        """Read the family's Hugging Face `config.json`; what we cannot run is an error.

        path: of the file, for messages. Raises UserError for keys that change what the model computes and are not ours
        (`foreign_keys`), and for values that cannot be.
        """
        for key, harmless in cls.foreign_keys.items():
            if values.get(key) not in (None, *harmless):
                if key == REMOTE_CODE:
                    asked = str(values[key])[:60]
                    raise UserError(f"{path} has {key} {asked!a}: the model has code of its own, which is never run")
                accepted = f"; accepted: {', '.join(map(repr, harmless))}" if harmless else ""
                raise UserError(f"{path} has {key} {str(values[key])[:60]!a}, which is not read{accepted}")
        names = {cls.keys.get(field.name, field.name): field.name for field in dataclasses.fields(cls)}
        known = {names[key]: value for key, value in values.items() if key in names and key != "other"}
        other = {key: value for key, value in values.items() if key not in names and key not in OWN_KEYS}
        try:
            return cls(**known, other=other)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The keys of a Hugging Face `config.json` that describe the encoder."""
        own = {}
        for field in dataclasses.fields(self):
            key = self.keys.get(field.name, field.name)
            if key is not None and field.name != "other":
                own[key] = getattr(self, field.name)
        return {"model_type": self.model_type, **self.constants, **self.other, **own}
