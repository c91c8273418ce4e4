"""A checkpoint is a Hugging Face directory: config.json, model.safetensors, the tokenizer's files, bothways.json.

Names of tensors are data: `RENAMES`, one ordered table, read in both directions. `transformers` opens what is written
here, and what it writes is opened here, from a directory or straight from the hub. Nothing is ever unpickled:
a `pytorch_model.bin` is read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bothways.checkpoint.sentence_transformers import SentenceModules, read_modules, write_modules
from bothways.checkpoint.weights import find_model, read_weights
from bothways.errors import UserError
from bothways.files import read_json, replace_directory, write_json, write_text
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.heads import (
    ARCHITECTURES,
    CausalLMHead,
    EmbeddingHead,
    Head,
    Model,
    PoolerHead,
    SequenceHead,
    TokenHead,
    initialise,
)
from bothways.text.tokenizer import Tokenizer

# Ours ↔ Hugging Face, by module; weight and bias follow. `*` is a layer's number. Several names on the right are
# rows of one matrix, in this order.
RENAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("encoder.embeddings.token", ("bert.embeddings.word_embeddings",)),
    ("encoder.embeddings.token_type", ("bert.embeddings.token_type_embeddings",)),
    ("encoder.embeddings.position", ("bert.embeddings.position_embeddings",)),
    ("encoder.embeddings.norm", ("bert.embeddings.LayerNorm",)),
    (
        "encoder.layers.*.attention.qkv",
        tuple(f"bert.encoder.layer.*.attention.self.{name}" for name in ("query", "key", "value")),
    ),
    ("encoder.layers.*.attention.output", ("bert.encoder.layer.*.attention.output.dense",)),
    ("encoder.layers.*.attention_norm", ("bert.encoder.layer.*.attention.output.LayerNorm",)),
    ("encoder.layers.*.intermediate", ("bert.encoder.layer.*.intermediate.dense",)),
    ("encoder.layers.*.output", ("bert.encoder.layer.*.output.dense",)),
    ("encoder.layers.*.output_norm", ("bert.encoder.layer.*.output.LayerNorm",)),
    ("head.pooler.dense", ("bert.pooler.dense",)),
    ("head.lm.dense", ("cls.predictions.transform.dense",)),
    ("head.lm.norm", ("cls.predictions.transform.LayerNorm",)),
    ("head.lm.decoder", ("cls.predictions.decoder",)),
    ("head.nsp", ("cls.seq_relationship",)),
    ("head.classifier", ("classifier",)),
    ("head.qa_outputs", ("qa_outputs",)),
)
# What a file of this class was trained for, by the name of the task; other classes are for no task of ours.
TRAINED_FOR = {
    "BertForSequenceClassification": "classify",
    "BertForTokenClassification": "tag",
    "BertForQuestionAnswering": "answer",
    "BertForMultipleChoice": "choose",
}
LABELLED: dict[str, type[SequenceHead] | type[TokenHead]] = {
    "BertForSequenceClassification": SequenceHead,
    "BertForTokenClassification": TokenHead,
}
TIED = "head.lm.decoder.weight"  # the token table under a second name: written once, as the token table

# Spellings of older files, put right before RENAMES is read: TensorFlow's layer norm, the MLM bias outside the decoder.
LEGACY: tuple[tuple[str, str], ...] = (
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"^cls\.predictions\.bias$", "cls.predictions.decoder.bias"),
)


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under Hugging Face names, `bert.` first; fused matrices are cut into views."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == TIED:
            continue
        theirs = _translate(name)
        renamed.update(zip(theirs, tensor.chunk(len(theirs)), strict=True))
    # transformers keeps the MLM bias outside the decoder
    if "cls.predictions.decoder.bias" in renamed:
        renamed["cls.predictions.bias"] = renamed.pop("cls.predictions.decoder.bias")
    return renamed


def _translate(name: str) -> list[str]:
    module, _, parameter = name.rpartition(".")
    number = re.search(r"\.layers\.(\d+)\.", name)
    pattern = re.sub(r"\.layers\.\d+\.", ".layers.*.", module)
    for ours, theirs in RENAMES:
        if ours == pattern:
            return [f"{other.replace('*', number[1] if number else '')}.{parameter}" for other in theirs]
    return [name]  # a head without a Hugging Face counterpart keeps its name


def from_hugging_face(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Find the `wanted` tensors (our names) among Hugging Face names; also returns the names left unused.

    Accepts files with and without the `bert.` prefix, and the older spellings in `LEGACY`.
    """
    theirs: dict[str, Tensor] = {}
    original: dict[str, str] = {}
    prefixed = any(name.startswith("bert.") for name in state)
    for name, tensor in state.items():
        modern = name
        for old, new in LEGACY:
            modern = re.sub(old, new, modern)
        if not prefixed and modern.split(".")[0] in ("embeddings", "encoder", "pooler"):
            modern = f"bert.{modern}"
        theirs[modern], original[modern] = tensor, name
    found: dict[str, Tensor] = {}
    used = {"cls.predictions.decoder.weight"} if TIED in wanted else set()
    for name in wanted:
        parts = _translate(name)
        if name != TIED and all(part in theirs for part in parts):
            found[name] = theirs[parts[0]] if len(parts) == 1 else torch.cat([theirs[part] for part in parts])
            used.update(parts)
    return found, [original[name] for name in theirs if name not in used]


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor; our names for the first two lists, the file's for the third."""

    loaded: list[str]
    newly_initialised: list[str]
    unused: list[str]

    @property
    def expected(self) -> bool:
        """True when the encoder is complete: only a head is new, or only another head's weights were left."""
        return not any(name.startswith("encoder.") for name in self.newly_initialised)

    def sentence(self) -> str:
        """One sentence for the user, saying whether this is as it should be."""
        counts = (
            f"{len(self.loaded)} tensors loaded, {len(self.newly_initialised)} newly initialised, "
            f"{len(self.unused)} unused"
        )
        if not self.expected:
            missing = [name for name in self.newly_initialised if name.startswith("encoder.")]
            return f"{counts}: NOT expected, the file lacks parts of the encoder ({', '.join(missing[:3])}, …)."
        if self.newly_initialised:
            modules = sorted({name.rpartition(".")[0] for name in self.newly_initialised})
            return f"{counts}: expected before fine-tuning; {', '.join(modules)} knows nothing until it is trained."
        if self.unused:
            return f"{counts}: expected, what is unused belongs to another head ({', '.join(self.unused[:3])})."
        return f"{counts}: expected, everything fits."


@dataclass
class Checkpoint:
    """A model in memory with everything that lies beside it in its directory."""

    model: Model
    tokenizer: Tokenizer
    metadata: dict[str, Any] = field(default_factory=dict)  # bothways.json: task, labels, provenance
    report: LoadReport | None = None
    source: str = ""

    @property
    def config(self) -> EncoderConfig:
        return self.model.config


HeadBuilder = Callable[[Encoder], Head]


def new_model(config: EncoderConfig, head: HeadBuilder, seed: int) -> Model:
    """A model with BERT's random initialisation, the same for the same seed (0 to 2^63 - 1)."""
    encoder = Encoder(config)
    model = Model(encoder, head(encoder))
    initialise(model, config.initializer_range, torch.Generator().manual_seed(seed))
    return model


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the directory atomically; one that is already there is replaced only when the new one is complete."""
    with replace_directory(directory) as partial:
        model = checkpoint.model
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in to_hugging_face(model.state_dict()).items()
        }
        if isinstance(model.head, PoolerHead | EmbeddingHead):
            tensors = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        write_all_but_weights(checkpoint, partial)


def write_all_but_weights(checkpoint: Checkpoint, directory: Path) -> None:
    """Write config, tokenizer and what else belongs to a model into an empty directory."""
    model = checkpoint.model
    write_json(directory / "config.json", _config_json(checkpoint))
    checkpoint.tokenizer.save(directory, max_length=model.config.max_position_embeddings)
    write_json(
        directory / "bothways.json", {"format": 1, "tokenizer": checkpoint.tokenizer.fingerprint, **checkpoint.metadata}
    )
    if isinstance(model.head, CausalLMHead):
        write_json(directory / "generation_config.json", _generation_config(checkpoint.tokenizer))
    if "chat_template" in checkpoint.metadata:
        write_text(directory / "chat_template.jinja", checkpoint.metadata["chat_template"])
    if isinstance(model.head, EmbeddingHead):
        limit = checkpoint.metadata.get("sequence_length", model.config.max_position_embeddings)
        modules = SentenceModules(model.head.pooling, model.head.normalize, limit)
        write_modules(directory, modules, model.config.hidden_size)


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Where texts begin and end: `[SOS]` and `[EOS]` of a BERT vocabulary are `[CLS]` and `[SEP]`. Others are not
    written."""
    ids = {"bos_token_id": tokenizer.cls_id, "eos_token_id": tokenizer.sep_id, "pad_token_id": tokenizer.pad_id}
    return {**ids, "suppress_tokens": tokenizer.suppressed_ids}


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES.get(type(checkpoint.model.head), "BertModel")],
        **checkpoint.config.to_dict(),
        "dtype": "float32",
    }
    labels = checkpoint.metadata.get("labels")
    if labels:
        config["id2label"] = dict(enumerate(labels))
        config["label2id"] = {label: index for index, label in enumerate(labels)}
    if checkpoint.metadata.get("problem_type"):
        config["problem_type"] = checkpoint.metadata["problem_type"]
    return config


def load_checkpoint(
    path_or_hub_id: str | Path,
    head: HeadBuilder | None = None,
    *,
    labels: Sequence[str] = (),
    dropout: float | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Open a Hugging Face directory, or download one from the hub by its id.

    head: builds the head to put on the encoder; without it, the head that the directory's `architectures` names.
    labels: those of `head`; a classifier of other labels, or for another task, is left unused.
    dropout: replaces the config's probabilities. seed: what the file does not hold is initialised from it.
    Raises UserError: not a model directory, a config that does not fit the weights, another model's vocabulary.
    """
    directory = find_model(path_or_hub_id)
    raw_config = read_json(directory / "config.json")
    config = EncoderConfig.from_dict(raw_config)
    state = read_json(directory / "bothways.json") if (directory / "bothways.json").exists() else {}
    if dropout is not None:
        config = replace(config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    tokenizer = Tokenizer.load(directory)
    _check_vocabulary(directory, config, tokenizer, state)
    weights = read_weights(directory)
    architecture = _architecture(raw_config, weights)
    modules = read_modules(directory) if head is None and architecture not in TRAINED_FOR else None
    state = _with_config(state, _foreign_state(directory, raw_config, weights, architecture, modules))
    known_labels = state.get("labels", [])
    model = new_model(config, head or _head_for(architecture, known_labels, modules), seed)
    anew = head is not None and (list(labels) != known_labels or ARCHITECTURES.get(type(model.head)) != architecture)
    report = _load_weights(model, weights, directory, "head.classifier" if anew else None)
    if not report.expected:
        raise UserError(f"{directory}: {report.sentence()}")
    return Checkpoint(model.eval(), tokenizer, state, report, str(path_or_hub_id))


def weights_fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits over every parameter's bytes."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _architecture(raw_config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """The class that the config names; early files name none, then what the weights are for."""
    named = raw_config.get("architectures")
    if named:
        return str(named[0])
    if "cls.seq_relationship.weight" in weights:
        return "BertForPreTraining"
    if any(name.startswith("cls.predictions.") for name in weights):
        return "BertForMaskedLM"
    if "qa_outputs.weight" in weights:
        return "BertForQuestionAnswering"
    if "classifier.weight" in weights:
        pooled = any(name.endswith("pooler.dense.weight") for name in weights)
        return "BertForSequenceClassification" if pooled else "BertForTokenClassification"
    return "BertModel"


def _with_config(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`bothways.json` with what the config says besides. Where they differ on task, labels or kind of problem, the
    model was trained on elsewhere since, and what we knew of its task is no longer true."""
    if any(key in state and key in config and state[key] != config[key] for key in ("task", "labels", "problem_type")):
        return {**{key: state[key] for key in ("tokenizer", "provenance") if key in state}, **config}
    return {**config, **state}


def _foreign_state(
    directory: Path,
    raw_config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    architecture: str,
    modules: SentenceModules | None,
) -> dict[str, Any]:
    """What `bothways.json` would say of a model that was made elsewhere: its task, its labels."""
    if modules is not None:
        longest = int(raw_config.get("max_position_embeddings", 512))
        limit = {} if modules.max_length is None else {"sequence_length": min(modules.max_length, longest)}
        options = {"pooling": modules.pooling, "normalize": modules.normalize}
        return {"task": "similar", "options": options, **limit}
    if architecture not in TRAINED_FOR:
        return {}
    labels = _labels(directory, raw_config, weights) if architecture in LABELLED else []
    problem = raw_config.get("problem_type")
    if architecture == "BertForSequenceClassification" and not problem:
        problem = "regression" if len(labels) == 1 else "single_label_classification"  # as transformers takes it
    return {"task": TRAINED_FOR[architecture], "labels": labels, **({"problem_type": problem} if problem else {})}


def _labels(directory: Path, raw_config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    """The config's labels in order; transformers leaves them out when they are LABEL_0 and LABEL_1."""
    labels = raw_config.get("id2label")
    if not labels:
        rows = len(weights["classifier.bias"]) if "classifier.bias" in weights else 0
        return [f"LABEL_{index}" for index in range(rows)]
    try:
        ordered = [str(labels[key]) for key in sorted(labels, key=int)]
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{directory / 'config.json'}: id2label is {labels!r}, expected numbers to names") from error
    if len(set(ordered)) < len(ordered):
        raise UserError(f"{directory / 'config.json'}: id2label has a name twice: {', '.join(ordered)}")
    return ordered


def _head_for(architecture: str, labels: Sequence[str], modules: SentenceModules | None) -> HeadBuilder:
    if architecture in LABELLED:
        return lambda encoder: LABELLED[architecture](encoder, max(len(labels), 1))
    if modules is not None:
        return lambda encoder: EmbeddingHead(encoder, modules.pooling, modules.normalize)
    by_name: dict[str, HeadBuilder] = {name: kind for kind, name in ARCHITECTURES.items() if kind is not EmbeddingHead}
    # another class still has an encoder; the report lists its head as unused
    return by_name.get(architecture, PoolerHead)


def _load_weights(model: Model, weights: Mapping[str, Tensor], directory: Path, anew: str | None) -> LoadReport:
    wanted = model.state_dict()
    sought = {name: tensor for name, tensor in wanted.items() if not (anew and name.startswith(anew))}
    found, unused = from_hugging_face(weights, sought)
    untied = weights.get("cls.predictions.decoder.weight")
    if TIED in wanted and untied is not None:
        table = found.get("encoder.embeddings.token.weight")
        if table is not None and not torch.equal(untied, table):
            raise UserError(
                f"{directory}: its decoder is not its token table (tie_word_embeddings false), not supported"
            )
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{directory / 'config.json'} does not fit the weights: it asks for {_translate(name)[0]} of shape "
                f"{list(wanted[name].shape)}, the file holds {list(tensor.shape)}"
            )
    model.load_state_dict(found, strict=False)
    beyond = {name for name in unused if "encoder.layer." in name}
    if beyond:
        raise UserError(
            f"{directory / 'config.json'} does not fit the weights: it has num_hidden_layers "
            f"{model.config.num_hidden_layers}, the file holds {sorted(beyond)[0]} as well"
        )
    new = [name for name in wanted if name not in found and name != TIED]
    return LoadReport(list(found), new, unused)


def _check_vocabulary(directory: Path, config: EncoderConfig, tokenizer: Tokenizer, state: dict[str, Any]) -> None:
    # Some models pad their table to a round number of rows; a tokenizer with more pieces than rows is another model's.
    if not config.vocab_size - 1024 < tokenizer.vocab_size <= config.vocab_size:
        raise UserError(
            f"{directory}: the vocabulary is another model's: the tokenizer has {tokenizer.vocab_size} pieces, "
            f"config.json has vocab_size {config.vocab_size}"
        )
    recorded = state.get("tokenizer")
    if recorded and recorded != tokenizer.fingerprint:
        raise UserError(
            f"{directory}: the vocabulary is another model's: trained with tokenizer {recorded}, "
            f"tokenizer.json is {tokenizer.fingerprint}"
        )
