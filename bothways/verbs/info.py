"""`bothways info PATH`: what a store, a model, a run or a vocabulary is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.recipes import parse
from bothways.text.corpus import CorpusReport
from bothways.text.wordpiece import WordPieceTokenizer
from bothways.train.run import RunDirectory


@dataclass(frozen=True)
class InfoArguments:
    path: Positional[str]
    json: bool = False


def info(arguments: Sequence[str]) -> None:
    """`bothways info PATH`."""
    options = parse(
        "info",
        InfoArguments,
        arguments,
        "Say what a store, a model, a run or a vocabulary is. Example: bothways info store",
    )
    path = Path(options.path)
    if (path / "manifest.json").exists() or (path / "progress.json").exists():
        store = TokenStore(path)
        print(json.dumps(store.manifest) if options.json else "\n".join(store_lines(store)))
    elif (path / "config.json").exists() or (path / "model" / "config.json").exists():
        _print_facts(_model_facts(options.path), options.json)
    elif (path / "metrics.jsonl").exists():
        last = RunDirectory(path).metrics()[-1:]
        _print_facts({"run": options.path, "finished": False, **(last[0] if last else {})}, options.json)
    elif (path / "vocab.txt").exists() or (path / "tokenizer.json").exists():
        tokenizer = WordPieceTokenizer.load(path)
        facts = {"vocabulary": options.path, "pieces": tokenizer.vocab_size, "uncased": tokenizer.lowercase}
        _print_facts({**facts, "fingerprint": tokenizer.fingerprint}, options.json)
    else:
        raise UserError(
            f"{path}: not a store, a model, a run or a vocabulary" if path.exists() else f"{path}: no such path"
        )


def _print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    print(json.dumps(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items()))


def store_lines(store: TokenStore) -> list[str]:
    """What a person wants to know of a store."""
    manifest = store.manifest
    held_out = store.split("validation")
    unknown = manifest["unknown_tokens"] / max(1, manifest["tokens"])
    lines = [
        f"{store.directory}: {manifest['documents']:,} documents, {manifest['sentences']:,} sentences, "
        f"{manifest['tokens']:,} tokens ({unknown:.3%} unknown), fingerprint {store.fingerprint}",
        f"held out: {held_out.documents:,} documents, {held_out.tokens:,} tokens",
    ]
    if manifest["documents_without_words"]:
        lines.append(f"without words: {manifest['documents_without_words']:,} documents")
    return lines + CorpusReport.from_dict(manifest["corpus"]).lines()


def _model_facts(path: str) -> dict[str, Any]:
    from bothways.inference.predictor import load

    model = load(path)
    assert model.report is not None
    facts: dict[str, Any] = {
        "model": path,
        "head": type(model.model.head).__name__,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        **model.config.to_dict(),
        "tokenizer": model.tokenizer.fingerprint,
        "weights": model.report.sentence(),
    }
    if model.labels:
        facts["labels"] = model.labels
    if "provenance" in model.checkpoint.state:
        facts["provenance"] = model.checkpoint.state["provenance"]
    return facts
