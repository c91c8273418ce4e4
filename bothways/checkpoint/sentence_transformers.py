"""The files that make a Hugging Face directory a sentence-transformers one: modules.json and the modules' own.

Reads and writes exactly an `EmbeddingHead`: an encoder, pooling by mean or first token, and normalisation. Of what lies
beside the modules, the prompt put before every text, the lower case and the similarity are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.files import read_json, write_json, write_text
from bothways.model.heads import Pooling
from bothways.text.lines import is_unicode

POOLINGS: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


# The names of its own file for the module that holds the encoder, the first that is there.
TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
ENCODER_MODULES = ("Transformer", "BERT")  # BERT: before version 0.2.6
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class SentenceModules:
    """What `modules.json` and the files beside it put around an encoder.

    max_length: tokens a text may have; None where the directory does not say. prompt: what stands before every text.
    similarity: how vectors are compared.
    """

    pooling: Pooling
    normalize: bool
    max_length: int | None
    prompt: str = ""
    similarity: str = "cosine"

    def state(self, longest: int) -> dict[str, Any]:
        """What `bothways.json` would say of them. longest: rows of the position table."""
        limit = {} if self.max_length is None else {"sequence_length": min(self.max_length, longest)}
        prompt = {"prompt": self.prompt} if self.prompt else {}
        similarity = {"similarity": self.similarity} if self.similarity != "cosine" else {}
        options = {"pooling": self.pooling, "normalize": self.normalize}
        return {"task": "similar", "options": options, **limit, **prompt, **similarity}


def encoder_directory(directory: Path) -> Path:
    """Where the encoder's own files are: `directory`, or the folder in it that `modules.json` names.

    Raises UserError for a folder outside of the directory.
    """
    path = directory / "modules.json"
    if not path.exists():
        return directory
    for module in _listed(path):
        if _kind(module) in ENCODER_MODULES:
            return _module_directory(directory, module)
    return directory


def lower_cases_texts(directory: Path) -> bool:
    """Whether sentence-transformers lower-cases a text before it gives it to the directory's tokenizer."""
    if not (directory / "modules.json").exists():
        return False
    return bool(_transformer_config(encoder_directory(directory)).get("do_lower_case", False))


def read_modules(directory: Path) -> SentenceModules | None:
    """Reads what `modules.json` puts on the encoder; None where there is no such file.

    Raises UserError for modules that are not pooling by mean or first token and normalisation, in this order, and for
    a prompt that is left out of the pooling.
    """
    path = directory / "modules.json"
    if not path.exists():
        return None
    listed = _listed(path)
    kinds = tuple("Transformer" if _kind(module) in ENCODER_MODULES else _kind(module) for module in listed)
    for kind, module in zip(kinds, listed, strict=True):
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise UserError(
                f"{path}: the module {str(module.get('type'))[:60]!r} is not read; Transformer, Pooling, Normalize are"
            )
    if "Pooling" not in kinds:
        raise UserError(f"{path}: has no Pooling module")
    if kinds[:2] != ("Transformer", "Pooling") or set(kinds[2:]) - {"Normalize"}:
        raise UserError(f"{path}: the modules are {', '.join(kinds)}; read are Transformer, Pooling and Normalize")
    encoder = encoder_directory(directory)
    prompt, similarity = _prompt_and_similarity(directory / "config_sentence_transformers.json")
    pooling_path = _module_directory(directory, listed[1]) / "config.json"
    pooling = read_json(pooling_path)
    if prompt and pooling.get("include_prompt", True) is not True:
        raise UserError(f"{pooling_path}: include_prompt is false, and there is a default prompt: that is not read")
    transformer = _transformer_config(encoder)
    return SentenceModules(
        _pooling(pooling_path, pooling),
        "Normalize" in kinds,
        _max_length(encoder, transformer),
        prompt,
        similarity,
    )


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _module_directory(directory: Path, module: dict[str, Any]) -> Path:
    name = module.get("path", "")
    if not isinstance(name, str) or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{directory / 'modules.json'}: the path {str(name)[:60]!a} is no folder of this directory")
    return directory / name


def _transformer_config(encoder: Path) -> dict[str, Any]:
    """The encoder module's own file. Raises UserError for another task of it than vectors of tokens."""
    path = next((path for name in TRANSFORMER_FILES if (path := encoder / name).exists()), None)
    config = {} if path is None else read_json(path)
    task = config.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise UserError(f"{path}: transformer_task is {str(task)[:60]!r}; read is feature-extraction")
    return config


def _prompt_and_similarity(path: Path) -> tuple[str, str]:
    """The prompt before every text, and how vectors are compared. path: of a file that need not be there."""
    config = read_json(path) if path.exists() else {}
    similarity = config.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITIES:
        raise UserError(f"{path}: similarity_fn_name is {str(similarity)[:60]!r}; accepted: {', '.join(SIMILARITIES)}")
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return "", similarity
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not isinstance(prompt, str) or not is_unicode(prompt):
        raise UserError(f"{path}: default_prompt_name is {str(name)[:60]!a}, and prompts has no text of this name")
    return prompt, similarity


def _max_length(encoder: Path, transformer: dict[str, Any]) -> int | None:
    """Where sentence-transformers keeps it: its own file, or, since version 6, the tokenizer's."""
    path = encoder / "tokenizer_config.json"
    limits = (transformer.get("max_seq_length"), read_json(path).get("model_max_length") if path.exists() else None)
    return next((limit for limit in limits if isinstance(limit, int) and limit >= 3), None)


def _listed(path: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise UserError(f"{path}: expected a list of modules")
    return modules


def _pooling(path: Path, config: dict[str, Any]) -> Pooling:
    """Pooling's config: one mode by name in newer files, switches in older ones."""
    named = config.get("pooling_mode")
    if named is not None:
        modes = list(named) if isinstance(named, list) else [named]
    else:
        modes = [POOLINGS.get(key, key) for key, value in config.items() if key.startswith("pooling_mode") and value]
    if len(modes) != 1 or modes[0] not in POOLINGS.values():
        raise UserError(f"{path}: pools by {', '.join(map(str, modes)) or 'nothing'}; read are mean and cls")
    return "cls" if modes[0] == "cls" else "mean"


def write_modules(directory: Path, modules: SentenceModules, hidden_size: int) -> None:
    """Write the files into a Hugging Face directory, as sentence-transformers of every version reads them."""
    types = ["Transformer", "Pooling", *(["Normalize"] if modules.normalize else [])]
    listed = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(types)
    ]
    write_text(directory / "modules.json", json.dumps(listed, indent=2) + "\n")
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": modules.max_length, "do_lower_case": False})
    for module in listed[1:]:
        (directory / str(module["path"])).mkdir()
    if modules.prompt or modules.similarity != "cosine":
        prompts = {"prompts": {"default": modules.prompt}, "default_prompt_name": "default"} if modules.prompt else {}
        similarity = {"similarity_fn_name": modules.similarity}
        write_json(directory / "config_sentence_transformers.json", {**prompts, **similarity})
    switches = {key: mode == modules.pooling for key, mode in POOLINGS.items()}
    write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden_size, **switches})
