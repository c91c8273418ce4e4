"""A model behind a URL: which files of its folder are copied, so that it opens as a directory does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bothways.checkpoint.unfinished import START, unfinished_model
from bothways.errors import UserError
from bothways.files import read_json
from bothways.remote_files import RemoteFile, copied, copied_folder, matches, remote_files, shown_url

# Of a model's folder: what other programs read, and what training needs.
UNWANTED = ("*.onnx", "*.onnx.data", "*.h5", "*.msgpack", "*.ot", "optimizer.*", "checkpoints/*", "tensorboard/*", ".*")


def copied_model(url: str) -> Path:
    """The copy of a model's directory; of a run that of RUN/model, or, where it has not finished, of its best epoch or
    last checkpoint, as `unfinished_model` says.

    Raises UserError where there is no model.
    """
    files = remote_files(url)
    if "config.json" not in files and "model/config.json" in files:
        url, files = f"{url}/model", _below("model", files)
    if "config.json" in files:
        return _with_base(url, _weights_once(files))
    states = sorted(name for name in files if matches(name, ["checkpoints/step-*/state.json"]))
    if states:
        last = states[-1].rpartition("/")[0]
        wanted = ("best/*", states[-1]) if "best/config.json" in files else (f"{START}/*", f"{last}/*")
        return unfinished_model(copied_folder(url, files, ("run.json", *wanted)))
    if files and "" not in files:
        raise UserError(f"{shown_url(url)}: is no model: config.json is missing")
    return copied_folder(url, files)  # which says what is wrong


def _below(folder: str, files: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
    return {name.removeprefix(f"{folder}/"): files[name] for name in files if name.startswith(f"{folder}/")}


def _weights_once(files: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
    """The files that are read: no pickled weights in a folder that has safetensors."""
    safe = {name.rpartition("/")[0] for name in files if name.endswith(".safetensors")}
    return {
        name: file
        for name, file in files.items()
        if matches(name, ["*"], UNWANTED) and not (name.endswith(".bin") and name.rpartition("/")[0] in safe)
    }


def _with_base(url: str, files: Mapping[str, RemoteFile]) -> Path:
    """The copy, with that of the directory beside it whose weights it shares, if it does."""
    found = copied(url, files)
    state = read_json(found / "bothways.json") if "bothways.json" in files else {}
    base = state.get("base")
    if not isinstance(base, str) or "/" in base:
        return found
    parent, _, name = url.rpartition("/")
    beside = _weights_once(remote_files(f"{parent}/{base}"))
    both = {**{f"{name}/{file}": files[file] for file in files}, **{f"{base}/{file}": beside[file] for file in beside}}
    return copied(parent, both) / name
