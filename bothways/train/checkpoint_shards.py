"""A checkpoint in shards: each process writes its own into one directory, that of the main process.

Where the run is behind a URL, machines share no folder: each process that is not on the main one's uploads its shard
under a hidden name below the run, and the main process takes them from there into its directory, which is then uploaded
as any checkpoint.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from bothways.errors import UserError, option
from bothways.files import user_errors
from bothways.remote_files import download, remote_files, remove, upload
from bothways.train.distributed import World

SHARDS = "*.safetensors"
_WORD = ".main"  # a file by which a process knows the directory of the main one
_ON_THE_WAY = ".shards"  # below a run's URL


def save_shards(path: Path, tensors: Mapping[str, Tensor], world: World, url: str | None) -> None:
    """Write all shards into the directory that the main process's `replace_directory(path)` made. All processes must
    call it.

    url: of the run; None where `path` is in a folder that all machines share. Raises UserError where a shard cannot be
    written, or is missing in the end.
    """
    partial = path.resolve().with_name(f".{path.name}.partial")
    if url is None:
        world.wait()  # for the directory
        _save(partial, path, tensors)
    else:
        _save_elsewhere(partial, path, tensors, world, url)
    if world.main:
        _require_all(partial, world.size)


def forget_shards(url: str) -> None:
    """Remove what jobs that were killed at a checkpoint of the run behind `url` left on the way."""
    on_the_way = f"{url}/{_ON_THE_WAY}"
    remove(on_the_way, list(remote_files(on_the_way)))


def _save_elsewhere(partial: Path, path: Path, tensors: Mapping[str, Tensor], world: World, url: str) -> None:
    word = world.agree(secrets.token_hex(8))
    if world.main:
        (partial / _WORD).write_text(word, encoding="ascii")
    world.wait()
    known = (partial / _WORD).read_text(encoding="ascii") if (partial / _WORD).exists() else ""
    own = partial if known == word else partial.with_name(f"{partial.name}.{world.rank}")  # machines may share a cache
    if own != partial:
        shutil.rmtree(own, ignore_errors=True)
        with user_errors(path):
            own.mkdir(parents=True)
    world.wait()
    _save(own, path, tensors)
    on_the_way = f"{url}/{_ON_THE_WAY}/{word}"
    if own != partial:
        upload(on_the_way, {shard.name: shard for shard in own.glob(SHARDS)})
        shutil.rmtree(own, ignore_errors=True)
    world.wait()
    if world.main:
        if there := remote_files(on_the_way):
            download(on_the_way, {name: partial / name for name in there})
            remove(on_the_way, list(there))
        (partial / _WORD).unlink()


def _save(partial: Path, path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        dcp.save(dict(tensors), storage_writer=dcp.HuggingFaceStorageWriter(str(partial), save_distributed=True))
    except CheckpointException as error:
        raise UserError(
            f"{path}: cannot be written: {failure_reason(error)}; the checkpoint before is intact"
        ) from error


def _require_all(directory: Path, processes: int) -> None:
    found = len(list(directory.glob(SHARDS)))
    if found != processes:
        raise UserError(
            f"{directory}: {found} of {processes} processes left their part of the checkpoint here; "
            f"{option('out')} must be a folder that all machines share, or behind a URL"
        )


def failure_reason(error: BaseException) -> str:
    """The first line of an error; where several processes read together, of the first process's that failed."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error).splitlines() or [type(error).__name__])[0]
