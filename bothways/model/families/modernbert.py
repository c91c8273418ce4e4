"""ModernBERT (Warner et al. 2024), and Ettin, which is one: norms in front, gated feed-forward, rotary positions, no
biases, and attention within a window in all layers but every third."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from bothways.errors import UserError
from bothways.model.attention_mask import AttentionMask
from bothways.model.config import ACTIVATIONS, FOREIGN_KEYS, SIZE_RANGE, SIZE_RANGES, EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings, Rotary
from bothways.model.encoder import Encoder, Gate, PreNormLayer, SelfAttention
from bothways.model.families.base import Family, HeadForm, rename, tied_decoder
from bothways.model.families.parts import activation_function, linear, unpooled
from bothways.model.heads import Pooler
from bothways.model.lm_head import LMHeadTransform
from bothways.model.pretraining_heads import MaskedLMHead
from bothways.model.task_heads import ChoiceHead, SequenceHead, SpanHead, TokenHead

LayerType = Literal["full_attention", "sliding_attention"]
LAYER_TYPES: tuple[LayerType, ...] = ("full_attention", "sliding_attention")
BASES = {"full_attention": 160_000.0, "sliding_attention": 10_000.0}  # of the published models
GLOBAL_EVERY = 3
# Of an ungated feed-forward's width: a gated one has three matrices instead of two, and is as large with two thirds.
GATED_SHARE = 2 / 3


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """ModernBERT's hyperparameters. mlp_dropout: of the gated numbers inside a feed-forward. local_attention: tokens in
    the window of a sliding layer, half of them on either side. layer_types: of each layer; by default every third is
    global, the first among them. rope_bases: of the rotation, by type of layer."""

    vocab_size: int = 50368
    num_hidden_layers: int = 22
    intermediate_size: int = 1152
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    mlp_dropout: float = 0.0
    classifier_dropout: float | None = 0.0
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 50283
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    classifier_pooling: str = "cls"
    local_attention: int = 128
    layer_types: list[str] = dataclasses.field(default_factory=list)
    rope_bases: dict[str, float] = dataclasses.field(default_factory=lambda: dict(BASES))

    model_type: ClassVar[str] = "modernbert"
    keys: ClassVar[Mapping[str, str | None]] = {
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "embedding_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "norm_eps",
        "type_vocab_size": None,
        "is_decoder": None,
        "positions": None,
        "rope_bases": None,
    }
    foreign_keys: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **FOREIGN_KEYS,
        "is_decoder": (False,),
        "rope_scaling": (),
        "is_causal": (False,),
    }
    size_ranges: ClassVar[Mapping[str, tuple[int, int]]] = {**SIZE_RANGES, "local_attention": SIZE_RANGE}
    constants: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        if not self.layer_types and isinstance(self.num_hidden_layers, int):
            types = [LAYER_TYPES[number % GLOBAL_EVERY > 0] for number in range(min(self.num_hidden_layers, 1000))]
            object.__setattr__(self, "layer_types", types)
        super().__post_init__()
        if len(self.layer_types) != self.num_hidden_layers or set(self.layer_types) - {*LAYER_TYPES}:
            raise UserError(
                f"layer_types {str(self.layer_types)[:80]}: expected num_hidden_layers {self.num_hidden_layers} of "
                f"{', '.join(LAYER_TYPES)}"
            )
        for name, accepted in (("classifier_activation", ACTIVATIONS), ("classifier_pooling", ("cls", "mean"))):
            if getattr(self, name) not in accepted:
                raise UserError(f"{name} {getattr(self, name)!r} is not supported; accepted: {', '.join(accepted)}")
        if self.head_size % 2 or set(self.rope_bases) != {*LAYER_TYPES} or min(self.rope_bases.values()) < 1:
            raise UserError("rotary positions need heads of an even size, and a rope_theta of at least 1")

    def with_layers(self, numbers: Sequence[int]) -> ModernBertConfig:
        types = [self.layer_types[number] for number in numbers]
        return dataclasses.replace(self, num_hidden_layers=len(numbers), layer_types=types)

    @classmethod
    def sizes(cls, layers: int, hidden_size: int, intermediate_size: int, heads: int) -> dict[str, Any]:
        gated = round(intermediate_size * GATED_SHARE / 32) * 32
        return super().sizes(layers, hidden_size, gated, heads)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Any = "config.json") -> ModernBertConfig:
        """As of BERT; reads the rotation's bases as transformers 4 and 5 write them."""
        stated = values.get("rope_parameters") or {}
        every = values.get("global_attn_every_n_layers", GLOBAL_EVERY)
        bases: dict[str, Any] = {}
        for kind, old in zip(LAYER_TYPES, ("global_rope_theta", "local_rope_theta"), strict=True):
            parameters = (stated.get(kind) if isinstance(stated, Mapping) else None) or {}
            if not isinstance(parameters, Mapping) or parameters.get("rope_type", "default") != "default":
                raise UserError(f"{path} has rope_parameters {str(stated)[:80]}, which are not read; accepted: default")
            bases[kind] = parameters.get("rope_theta", values.get(old) or BASES[kind])
        if not isinstance(every, int) or every < 1 or not all(isinstance(base, int | float) for base in bases.values()):
            raise UserError(f"{path}: global_attn_every_n_layers and rope_theta: expected numbers of at least 1")
        layers = values.get("num_hidden_layers", cls.num_hidden_layers)
        types = values.get("layer_types") or [
            LAYER_TYPES[number % every > 0] for number in range(min(layers, 1000) if isinstance(layers, int) else 0)
        ]
        return super().from_dict({**values, "layer_types": types, "rope_bases": bases}, path)

    def to_dict(self) -> dict[str, Any]:
        """As of BERT; the rotation's bases as transformers 5 reads them, and as 4 does."""
        parameters = {kind: {"rope_type": "default", "rope_theta": base} for kind, base in self.rope_bases.items()}
        old = {
            "global_rope_theta": self.rope_bases["full_attention"],
            "local_rope_theta": self.rope_bases["sliding_attention"],
        }
        return {**super().to_dict(), "rope_parameters": parameters, **old}


def modernbert_encoder(config: ModernBertConfig) -> Encoder:
    embeddings = Embeddings(
        nn.Embedding(config.vocab_size, config.hidden_size),
        None,
        None,
        _norm(config),
        Dropout(config.hidden_dropout_prob),
    )
    layers = [_layer(config, number) for number in range(config.num_hidden_layers)]
    return Encoder(config, embeddings, layers, norm=_norm(config))


def _layer(config: ModernBertConfig, number: int) -> PreNormLayer:
    size, kind = config.hidden_size, config.layer_types[number]
    attention = SelfAttention(
        size,
        config.num_attention_heads,
        config.attention_probs_dropout_prob,
        AttentionMask(window=config.local_attention // 2 if kind == "sliding_attention" else None),
        rotary=Rotary(config.rope_bases[kind]),
        bias=config.attention_bias,
    )
    inner = nn.Linear(size, 2 * config.intermediate_size, bias=config.mlp_bias)
    outer = nn.Linear(config.intermediate_size, size, bias=config.mlp_bias)
    feed_forward = inner, Gate(activation_function(config.hidden_act), Dropout(config.mlp_dropout)), outer
    # the embeddings' norm is the first layer's
    norms = nn.Identity() if number == 0 else _norm(config), _norm(config)
    # feed-forward drops in front of its last product, and nothing behind it
    dropouts = Dropout(config.attention_probs_dropout_prob), nn.Identity()
    return PreNormLayer(attention, feed_forward, norms, dropouts)


def _norm(config: ModernBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)


def _transform_parts(config: Any) -> tuple[nn.Linear, Callable[[Tensor], Tensor], nn.LayerNorm]:
    """What every head begins with."""
    dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
    return dense, activation_function(config.classifier_activation), _norm(config)


def _pooler(encoder: Encoder) -> Pooler:
    dense, activation, norm = _transform_parts(encoder.config)
    return Pooler(dense, activation, norm=norm)


def _masked_lm_head(encoder: Encoder, labels: int) -> MaskedLMHead:
    config: Any = encoder.config
    return MaskedLMHead(LMHeadTransform(*_transform_parts(config), encoder.embeddings.token, config.decoder_bias))


def _pooled_parts(encoder: Encoder, labels: int) -> tuple[Pooler, Dropout, nn.Linear, Literal["first", "mean"]]:
    config: Any = encoder.config
    reading: Literal["first", "mean"] = "mean" if config.classifier_pooling == "mean" else "first"
    return _pooler(encoder), _dropout(config), linear(config, labels), reading


def _dropout(config: EncoderConfig) -> Dropout:
    return Dropout(config.classifier_dropout or 0.0)


def _token_head(encoder: Encoder, labels: int) -> TokenHead:
    return TokenHead(_dropout(encoder.config), linear(encoder.config, labels), _pooler(encoder))


_LAYER = "encoder.layers.*"
_CLASSIFIER = rename("head.classifier", "classifier")


def _head_renames(part: str) -> tuple[Any, ...]:
    return rename(f"head.{part}.dense", "head.dense"), rename(f"head.{part}.norm", "head.norm")


MODERNBERT = Family(
    "modernbert",
    "ModernBERT",
    ModernBertConfig,
    modernbert_encoder,
    "model",
    (
        rename("encoder.embeddings.token", "model.embeddings.tok_embeddings"),
        rename("encoder.embeddings.norm", "model.embeddings.norm"),
        rename(f"{_LAYER}.attention.qkv", "model.layers.*.attn.Wqkv"),
        rename(f"{_LAYER}.attention.output", "model.layers.*.attn.Wo"),
        rename(f"{_LAYER}.attention_norm", "model.layers.*.attn_norm"),
        rename(f"{_LAYER}.intermediate", "model.layers.*.mlp.Wi"),
        rename(f"{_LAYER}.output", "model.layers.*.mlp.Wo"),
        rename(f"{_LAYER}.output_norm", "model.layers.*.mlp_norm"),
        rename("encoder.norm", "model.final_norm"),
    ),
    {
        "masked-LM": HeadForm(
            "ModernBertForMaskedLM",
            _masked_lm_head,
            (*_head_renames("lm"), tied_decoder("decoder.weight"), rename("head.lm.decoder.bias", "decoder.bias")),
        ),
        "sequence": HeadForm(
            "ModernBertForSequenceClassification",
            lambda encoder, labels: SequenceHead(*_pooled_parts(encoder, labels)),
            (*_head_renames("pooler"), _CLASSIFIER),
        ),
        "token": HeadForm("ModernBertForTokenClassification", _token_head, (*_head_renames("transform"), _CLASSIFIER)),
        "span": HeadForm(
            "ModernBertForQuestionAnswering",
            lambda encoder, labels: SpanHead(linear(encoder.config, 2), _pooler(encoder), _dropout(encoder.config)),
            (*_head_renames("transform"), rename("head.qa_outputs", "classifier")),
        ),
        "choice": HeadForm(
            "ModernBertForMultipleChoice",
            lambda encoder, labels: ChoiceHead(*_pooled_parts(encoder, 1)),
            (*_head_renames("pooler"), _CLASSIFIER),
        ),
        "encoder": HeadForm("ModernBertModel", unpooled),
    },
)
