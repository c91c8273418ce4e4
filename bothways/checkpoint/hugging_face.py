"""A checkpoint is a Hugging Face directory: config.json, model.safetensors, the tokenizer's files, bothways.json.

Names of tensors are data, `model/families`. `transformers` opens what is written here, and what it writes is opened
here, from a directory or straight from the hub. Nothing is ever unpickled: a `pytorch_model.bin` is read with
`weights_only=True`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bothways.checkpoint.cross_encoders import cross_encoder_config, cross_encoder_state
from bothways.checkpoint.fit import require_fit
from bothways.checkpoint.names import NameTable
from bothways.checkpoint.sentence_transformers import (
    SentenceModules,
    encoder_directory,
    lower_cases_texts,
    pools_tokens,
    read_modules,
    write_modules,
)
from bothways.checkpoint.storage import STORAGE_KEYS, read_stored
from bothways.checkpoint.unfinished import is_start, last_parameters
from bothways.checkpoint.weights import find_model, refuse_foreign_form
from bothways.errors import UserError
from bothways.files import read_json, replace_directory, write_json, write_text
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.families import FAMILIES, HEAD_KINDS, build_encoder, build_head, read_config
from bothways.model.families.base import Family
from bothways.model.heads import Head, HeadKind, Model, initialise
from bothways.model.task_heads import vector_head
from bothways.option_checks import matches_type, type_in_words
from bothways.text.special_tokens import ABSENT
from bothways.text.tokenizer import Tokenizer

STATE_TYPES: dict[str, Any] = {  # of what `bothways.json` may hold
    "task": str,
    "labels": list,
    "options": dict,
    "problem_type": str | None,
    "sequence_length": int,
    "tokenizer": str,
    "prompt": str,
    "prompts": dict[str, str],
    "default_prompt_name": str | None,
    "include_prompt": bool,
    "similarity": str,
    "storage": str,
    "base": str,
    "base_weights": str,
    "activation": Literal["sigmoid", "identity"],
}


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor; our names for the first two lists, the file's for the third."""

    loaded: list[str]
    newly_initialised: list[str]
    unused: list[str]

    @property
    def encoder_complete(self) -> bool:
        """Whether the file held the whole encoder: at most a head is new, or another head's weights are unused."""
        return not any(name.startswith("encoder.") for name in self.newly_initialised)

    def sentence(self) -> str:
        """One sentence for the user, saying whether this is as it should be."""
        counts = (
            f"{len(self.loaded)} tensors loaded, {len(self.newly_initialised)} newly initialised, "
            f"{len(self.unused)} unused"
        )
        if not self.encoder_complete:
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
    encoder = build_encoder(config)
    model = Model(encoder, head(encoder))
    initialise(model, config.initializer_range, torch.Generator().manual_seed(seed))
    return model


def name_table(model: Model) -> NameTable:
    """The Hugging Face names of a model's tensors."""
    return NameTable(FAMILIES[model.config.model_type], model.head.kind)


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the directory atomically; one that is already there is replaced only when the new one is complete."""
    with replace_directory(directory) as partial:
        model = checkpoint.model
        own = model.state_dict()
        if vector_head(model) is not None:  # its weights are in the folders of its modules
            own = {name: tensor for name, tensor in own.items() if not name.startswith("head.")}
        theirs = name_table(model).to_hugging_face(own)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in theirs.items()}
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        write_all_but_weights(checkpoint, partial)


def write_all_but_weights(checkpoint: Checkpoint, directory: Path) -> None:
    """Write config, tokenizer and what else belongs to a model into an empty directory."""
    model = checkpoint.model
    write_json(directory / "config.json", _config_json(checkpoint))
    checkpoint.tokenizer.save(directory, max_length=model.config.max_sequence_length)
    write_json(
        directory / "bothways.json", {"format": 1, "tokenizer": checkpoint.tokenizer.fingerprint, **checkpoint.metadata}
    )
    if "causal-LM" in model.head.abilities:
        write_json(directory / "generation_config.json", _generation_config(checkpoint.tokenizer))
    if "chat_template" in checkpoint.metadata:
        write_text(directory / "chat_template.jinja", checkpoint.metadata["chat_template"])
    if (head := vector_head(model)) is not None:
        limit = checkpoint.metadata.get("sequence_length", model.config.max_sequence_length)
        write_modules(directory, head, checkpoint.metadata, model.config.hidden_size, limit)


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Where texts begin and end, `[CLS]` and `[SEP]` of a BERT vocabulary, and which special tokens are never
    generated: all others."""
    ids = {"bos_token_id": tokenizer.cls_id, "eos_token_id": tokenizer.sep_id, "pad_token_id": tokenizer.pad_id}
    return {**{name: id for name, id in ids.items() if id != ABSENT}, "suppress_tokens": tokenizer.suppressed_ids}


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    bare = FAMILIES[checkpoint.config.model_type].heads["encoder"].architecture
    config: dict[str, Any] = {
        "architectures": [checkpoint.model.head.architecture or bare],
        **checkpoint.config.to_dict(),
        "dtype": "float32",
    }
    labels = checkpoint.metadata.get("labels")
    if labels:
        config["id2label"] = dict(enumerate(labels))
        config["label2id"] = {label: index for index, label in enumerate(labels)}
    if checkpoint.metadata.get("problem_type"):
        config["problem_type"] = checkpoint.metadata["problem_type"]
    if activation := checkpoint.metadata.get("activation"):
        config |= cross_encoder_config(activation)
    return config


def load_checkpoint(
    path_or_hub_id: str | Path,
    head: HeadBuilder | None = None,
    *,
    labels: Sequence[str] = (),
    keep_vectors: bool = False,
    dropout: float | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Open a Hugging Face directory, or download one from the hub by its id.

    head: builds the head to put on the encoder; without it, the head that the directory's `architectures` names.
    labels: those of `head`; a classifier of other labels, or for another task, is left unused. keep_vectors: a model
    that gives vectors keeps the modules by which it does, in place of `head`.
    dropout: replaces the config's probabilities for hidden states and attention. seed: what the file does not hold is
    initialised from it.
    Raises UserError: not a model directory, a config that does not fit the weights, another model's vocabulary.
    """
    root = find_model(path_or_hub_id)
    directory = encoder_directory(root)
    raw_config = read_json(directory / "config.json")
    if (directory / "adapter_config.json").exists():
        refuse_foreign_form(directory)
    config = read_config(raw_config, directory / "config.json")
    state = _read_state(directory / "bothways.json")
    if dropout is not None:
        config = config.with_dropout(dropout)
    family = FAMILIES[config.model_type]
    tokenizer = Tokenizer.load(directory)
    _check_vocabulary(directory, config, tokenizer, state)
    if lower_cases_texts(root):
        tokenizer = tokenizer.lower_cased()
    if is_start(directory):
        weights = _unfinished_weights(directory, family, raw_config)
    else:
        weights = read_stored(directory, state, config, family)
    state = {name: value for name, value in state.items() if name not in STORAGE_KEYS}
    architecture = _architecture(family, raw_config, weights)
    kind = _head_kind(family, architecture)
    makes_vectors = HEAD_KINDS[kind].trained_for is None or pools_tokens(root)
    reads_modules = (head is None or keep_vectors) and makes_vectors
    modules = read_modules(root, config.hidden_size) if reads_modules else None
    foreign = (
        modules.state(config.max_sequence_length)
        if modules
        else _foreign_state(root, directory, kind, raw_config, weights)
    )
    state = _with_config(state, foreign)
    known_labels = state.get("labels", [])
    build = head if head is not None and modules is None else _head_builder(kind, known_labels, modules)
    if modules is not None:
        weights = {**modules.vectors.weights, **weights}  # of a run that has not finished, its own are newer
    require_fit(directory, config, build, weights, "head.classifier" if head is not None else None)
    model = new_model(config, build, seed)
    # a classifier for other labels, or of another kind of model, is not the one that is asked for
    other = head is not None and (list(labels) != known_labels or model.head.architecture != architecture)
    report = _load_weights(model, weights, directory, "head.classifier" if other else None)
    if not report.encoder_complete:
        raise UserError(f"{directory}: {report.sentence()}")
    return Checkpoint(model.eval(), tokenizer, state, report, str(path_or_hub_id))


def _read_state(path: Path) -> dict[str, Any]:
    """`bothways.json`, or nothing where it is not there. Raises UserError for values that cannot be."""
    state = read_json(path) if path.exists() else {}
    for name, kind in STATE_TYPES.items():
        if name in state and not matches_type(state[name], kind):
            raise UserError(f"{path}: {name} is {str(state[name])[:60]!a}, expected {type_in_words(kind)}")
    labels = state.get("labels", [])
    if len(set(map(str, labels))) < len(labels) or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{path}: labels is {str(labels)[:60]!a}, expected different names")
    if state.get("sequence_length", 3) < 3:
        raise UserError(f"{path}: sequence_length is {state['sequence_length']}, expected at least 3")
    return state


def weights_fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits over every parameter's bytes."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _unfinished_weights(directory: Path, family: Family, raw_config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The last checkpoint of a run that has not finished, by Hugging Face's names. directory: its `start`."""
    kind = _head_kind(family, _architecture(family, raw_config, {}))
    return NameTable(family, kind).to_hugging_face(last_parameters(directory.parent))


def _architecture(family: Family, raw_config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """The class that the config names; early files name none, then what the weights are for."""
    named = raw_config.get("architectures")
    if named:
        if not isinstance(named, list) or not isinstance(named[0], str):
            raise UserError(f"config.json: architectures is {str(named)[:60]!r}, expected a list of names")
        return named[0]
    tables = [NameTable(family, kind) for kind in family.heads]
    names = set(tables[0].modern_names(weights).values())
    held: HeadKind = next((table.head for table in tables if table.holds_head(names)), "encoder")
    return family.heads[held].architecture


def _head_kind(family: Family, architecture: str) -> HeadKind:
    """The head of a Hugging Face class. Another class still has an encoder; the report lists its head as unused."""
    return next((kind for kind, form in family.heads.items() if form.architecture == architecture), "encoder")


def _with_config(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`bothways.json` completed by the config.

    Where they differ on task, labels or kind of problem, the model was trained on elsewhere since, and what
    `bothways.json` says of its task is no longer true. A task that no Hugging Face class stands for may share its head
    with a task that has one; then the class says nothing of the task.
    """
    of_classes = {head.trained_for for head in HEAD_KINDS.values()}
    compared = ["labels", "problem_type", *(["task"] if state.get("task") in of_classes else [])]
    if any(key in state and key in config and state[key] != config[key] for key in compared):
        return {**{key: state[key] for key in ("tokenizer", "provenance") if key in state}, **config}
    return {**config, **state}


def _foreign_state(
    root: Path, directory: Path, kind: HeadKind, raw_config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What `bothways.json` would say of a model that was made elsewhere: its task, its labels. directory: where the
    encoder is in `root`."""
    head = HEAD_KINDS[kind]
    if head.trained_for is None:
        return {}
    labels = _labels(directory, kind, raw_config, weights) if head.needs_labels else []
    problem = raw_config.get("problem_type")
    state = {"task": head.trained_for, "labels": labels}
    if head.trained_for != "classify":
        return {**state, **({"problem_type": problem} if problem else {})}
    # as transformers takes it
    problem = problem or ("regression" if len(labels) == 1 else "single_label_classification")
    return {**state, "problem_type": problem, **cross_encoder_state(root, raw_config, len(labels), problem)}


def _labels(directory: Path, kind: HeadKind, raw_config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    """The config's labels in order; transformers leaves them out when they are LABEL_0 and LABEL_1."""
    labels = raw_config.get("id2label")
    if not labels:
        table = NameTable(FAMILIES[raw_config.get("model_type", "bert")], kind)
        matrix = weights.get(table.their_names("head.classifier.weight")[0])
        rows = 0 if matrix is None else len(matrix)
        return [f"LABEL_{index}" for index in range(rows)]
    try:
        ordered = [str(labels[key]) for key in sorted(labels, key=int)]
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{directory / 'config.json'}: id2label is {labels!r}, expected numbers to names") from error
    if len(set(ordered)) < len(ordered):
        raise UserError(f"{directory / 'config.json'}: id2label has a name twice: {', '.join(ordered)}")
    return ordered


def _head_builder(kind: HeadKind, labels: Sequence[str], modules: SentenceModules | None) -> HeadBuilder:
    if modules is not None:
        return lambda encoder: modules.vectors.head()
    return lambda encoder: build_head(encoder, kind, max(len(labels), 1))


def _load_weights(model: Model, weights: Mapping[str, Tensor], directory: Path, ignored: str | None) -> LoadReport:
    """Put the file's tensors into the model. ignored: a module of ours that is left as it is."""
    wanted = model.state_dict()
    sought = {name: tensor for name, tensor in wanted.items() if not (ignored and name.startswith(ignored))}
    table = name_table(model)
    found, unused = table.from_hugging_face(weights, sought)
    tied = {name: other for name in wanted if (other := table.tied_to(name)) is not None}
    for name, other in tied.items():
        second, first = weights.get(table.their_names(name)[0]), found.get(other)
        if second is not None and first is not None and not torch.equal(second, first):
            raise UserError(
                f"{directory}: its decoder is not its token table (tie_word_embeddings false), not supported"
            )
    try:
        model.load_state_dict(found, strict=False)
    except RuntimeError as error:
        shapes = " ".join(str(error).split())
        raise UserError(f"{directory / 'config.json'} does not fit the weights: {shapes}") from error
    new = [name for name in wanted if name not in found and name not in tied]
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
