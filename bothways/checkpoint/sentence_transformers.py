"""The files that make a Hugging Face directory a sentence-transformers one: modules.json and the modules' own.

Reads and writes exactly an `EmbeddingHead`: an encoder, pooling, and products and normalisations behind it. Of what
lies beside the modules, the prompts, the lower case and the similarity are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothways.checkpoint.sentence_modules import (
    MODULE_KINDS,
    VectorModules,
    read_vector_modules,
    vector_module_configs,
    write_vector_module,
)
from bothways.errors import UserError
from bothways.files import read_json, write_json, write_text
from bothways.model.task_heads import EmbeddingHead
from bothways.text.lines import is_unicode

# The names of its own file for the module that holds the encoder, the first that is there.
TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
ENCODER_MODULES = ("Transformer", "BERT")  # BERT: before version 0.2.6
# What the encoder module's file says where it gives the last hidden states of the tokens, as without it.
TOKEN_VECTORS = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "method": "forward",
    "method_output_name": "last_hidden_state",
}
FOREIGN_SETTINGS = ("processing_kwargs", "query_length", "document_length", "query_expansion")  # change what is read
SETTINGS_FILE = "config_sentence_transformers.json"
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class SentenceSettings:
    """What stands beside the modules. prompts: what may stand before a text, by name. default_prompt_name: of the one
    that stands before every text for which no other is asked. similarity: how vectors are compared."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"

    def state(self) -> dict[str, Any]:
        """What `bothways.json` would say of them."""
        name = self.default_prompt_name
        prompt = self.prompts[name] if name is not None else ""
        state = {
            "prompt": prompt,
            "prompts": dict(self.prompts),
            "default_prompt_name": name,
            "similarity": self.similarity,
        }
        return {key: value for key, value in state.items() if value and value != "cosine"}


@dataclass(frozen=True)
class SentenceModules:
    """What `modules.json` and the files beside it put around an encoder.

    max_length: tokens a text may have; None where the directory does not say.
    """

    vectors: VectorModules
    max_length: int | None
    settings: SentenceSettings = SentenceSettings()

    def state(self, longest: int) -> dict[str, Any]:
        """What `bothways.json` would say of them. longest: rows of the position table."""
        limit = {} if self.max_length is None else {"sequence_length": min(self.max_length, longest)}
        head = self.vectors
        pooling = head.modes[0] if len(head.modes) == 1 else None
        prompt = {} if head.include_prompt else {"include_prompt": False}
        options = {"pooling": pooling, "normalize": head.normalize}
        return {"task": "similar", "options": options, **limit, **self.settings.state(), **prompt}


def encoder_directory(directory: Path) -> Path:
    """Where the encoder's own files are: `directory`, or the folder in it that `modules.json` names.

    Raises UserError for a folder outside of the directory.
    """
    path = directory / "modules.json"
    if not path.exists():
        return directory
    for module in listed_modules(path):
        if module_kind(module) == "Transformer":
            return _module_directory(directory, module)
    return directory


def lower_cases_texts(directory: Path) -> bool:
    """Whether sentence-transformers lower-cases a text before it gives it to the directory's tokenizer."""
    if not (directory / "modules.json").exists():
        return False
    return bool(transformer_config(encoder_directory(directory)).get("do_lower_case", False))


def pools_tokens(directory: Path) -> bool:
    """Whether `modules.json` makes vectors of texts, whatever the class in config.json."""
    path = directory / "modules.json"
    return path.exists() and "Pooling" in map(module_kind, listed_modules(path))


def read_modules(directory: Path, hidden_size: int) -> SentenceModules | None:
    """Reads what `modules.json` puts on the encoder; None where there is no such file. hidden_size: of the encoder.

    Raises UserError for modules that are not Transformer, Pooling and then any of Dense and Normalize, and for what
    they or the files beside them say that cannot be honoured.
    """
    path = directory / "modules.json"
    if not path.exists():
        return None
    listed = listed_modules(path)
    kinds = [module_kind(module) for module in listed]
    for kind, module in zip(kinds, listed, strict=True):
        if kind not in MODULE_KINDS:
            raise UserError(
                f"{path}: the module {str(module.get('type'))[:80]!r} is not read; {', '.join(MODULE_KINDS)} of "
                "sentence-transformers are"
            )
    if "Pooling" not in kinds:
        raise UserError(f"{path}: has no Pooling module")
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"}:
        raise UserError(
            f"{path}: the modules are {', '.join(kinds)}; read are Transformer, Pooling, and then any of Dense and "
            "Normalize"
        )
    encoder = encoder_directory(directory)
    folders = [(kind, _module_directory(directory, module)) for kind, module in zip(kinds, listed, strict=True)]
    transformer = transformer_config(encoder)
    _require_token_vectors(transformer, encoder)
    return SentenceModules(
        read_vector_modules(folders[1:], hidden_size),
        stated_max_length(encoder, transformer),
        _settings(directory / SETTINGS_FILE),
    )


def module_kind(module: Mapping[str, Any]) -> str:
    """The name of a class of sentence-transformers; of another's class its whole name."""
    named = str(module.get("type", ""))
    if not named.startswith("sentence_transformers."):
        return named
    name = named.rpartition(".")[2]
    return "Transformer" if name in ENCODER_MODULES else name


def _module_directory(directory: Path, module: Mapping[str, Any]) -> Path:
    name = module.get("path", "")
    if not isinstance(name, str) or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{directory / 'modules.json'}: the path {str(name)[:60]!a} is no folder of this directory")
    return directory / name


def transformer_config(encoder: Path) -> dict[str, Any]:
    """The encoder module's own file, with its name as `path`; empty where there is none."""
    path = next((path for name in TRANSFORMER_FILES if (path := encoder / name).exists()), None)
    return {} if path is None else {**read_json(path), "path": path}


def _require_token_vectors(transformer: Mapping[str, Any], encoder: Path) -> None:
    """Raises UserError for an encoder module that gives something else than the last vectors of the tokens."""
    path = transformer.get("path", encoder)
    modalities = transformer.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, dict) else None
    said = {**transformer, **(text if isinstance(text, dict) else {})}
    for name, accepted in TOKEN_VECTORS.items():
        if said.get(name, accepted) != accepted:
            raise UserError(f"{path}: {name} is {str(said[name])[:60]!r}; read is {accepted}")
    for name in FOREIGN_SETTINGS:
        if transformer.get(name):
            raise UserError(f"{path}: {name} is {str(transformer[name])[:60]}, which is not read")


def _settings(path: Path) -> SentenceSettings:
    """Prompts and similarity. path: of a file that need not be there."""
    config = read_json(path) if path.exists() else {}
    kind = config.get("model_type") or "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise UserError(f"{path}: model_type is {str(kind)[:60]!r}; with these modules SentenceTransformer is read")
    if config.get("truncate_dim") is not None:
        raise UserError(
            f"{path}: truncate_dim is {str(config['truncate_dim'])[:60]}, and vectors are not cut here; take it out of "
            "the file for whole vectors"
        )
    similarity = config.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITIES:
        raise UserError(f"{path}: similarity_fn_name is {str(similarity)[:60]!r}; accepted: {', '.join(SIMILARITIES)}")
    prompts, name = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(
        isinstance(text, str) and is_unicode(text) for text in prompts.values()
    ):
        raise UserError(f"{path}: prompts is {str(prompts)[:60]!a}, expected a text for each name")
    if name is not None and (not isinstance(name, str) or name not in prompts):
        raise UserError(f"{path}: default_prompt_name is {str(name)[:60]!a}, and prompts has no text of this name")
    return SentenceSettings(prompts, name, similarity)


def stated_max_length(encoder: Path, transformer: Mapping[str, Any]) -> int | None:
    """The tokens of a text at most, as the encoder's own file says it, or, since version 6, the tokenizer's; None where
    neither does."""
    path = encoder / "tokenizer_config.json"
    limits = (transformer.get("max_seq_length"), read_json(path).get("model_max_length") if path.exists() else None)
    return next((limit for limit in limits if isinstance(limit, int) and limit >= 3), None)


def listed_modules(path: Path) -> list[dict[str, Any]]:
    """The modules of a `modules.json`. Raises UserError where it is no list of them."""
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise UserError(f"{path}: expected a list of modules")
    return modules


def write_modules(directory: Path, head: EmbeddingHead, state: Mapping[str, Any], hidden_size: int, limit: int) -> None:
    """Write the files into a Hugging Face directory, as sentence-transformers of every version reads them.

    state: `bothways.json`. limit: tokens that a text may have.
    """
    modules = vector_module_configs(head, hidden_size)
    listed = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(("Transformer", *(kind for kind, _ in modules)))
    ]
    write_text(directory / "modules.json", json.dumps(listed, indent=2) + "\n")
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    for number, (kind, config) in enumerate(modules):
        projection = head.projections[number - 1] if 0 < number <= len(head.projections) else None
        write_vector_module(directory / f"{number + 1}_{kind}", kind, config, projection)
    if settings := _written_settings(state):
        write_json(directory / SETTINGS_FILE, settings)


def _written_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """What `SETTINGS_FILE` has; nothing where all is as it is without it."""
    similarity, prompt = state.get("similarity", "cosine"), state.get("prompt", "")
    prompts, name = dict(state.get("prompts", {})), state.get("default_prompt_name")
    if prompt and name is None:  # of an earlier Bothways, which kept no names
        prompts, name = {**prompts, "default": prompt}, "default"
    if not prompts and similarity == "cosine":
        return {}
    named = {"prompts": prompts, "default_prompt_name": name} if prompts else {}
    return {**named, "similarity_fn_name": similarity}
