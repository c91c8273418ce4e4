"""Shards of machines that share nothing but a URL, by threads in place of processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from bothways.checkpoint.hugging_face import Checkpoint, new_model
from bothways.files import replace_directory
from bothways.model.families import head_builder
from bothways.remote_files import remote_files, upload
from bothways.train import checkpoint_shards
from bothways.train.checkpoint_shards import save_shards
from bothways.train.distributed import World
from bothways.train.run import RunDirectory
from tests.helpers import tiny_config, tiny_tokenizer

URL = "memory://b/run"


@dataclass(frozen=True)
class Threads(World):
    """A world whose processes are threads."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    said: tuple[Any, ...] = ()

    def agree(self, value: Any) -> Any:
        if self.main:
            self.said[0].append(value)
        self.wait()
        return self.said[0][0]

    def wait(self) -> None:
        self.barrier.wait(10)


def test_machines_that_share_a_cache_send_each_shard_once(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three machines have one cache, which is not the main one's."""
    folders: list[Path] = []
    sent: list[str] = []

    def save(tensors: dict[str, torch.Tensor], storage_writer: Any) -> None:
        [rank] = tensors
        folders.append(Path(storage_writer.path))
        (folders[-1] / f"shard-{rank}.safetensors").write_text(rank)

    def counted(url: str, places: dict[str, Path]) -> None:
        sent.extend(places)
        upload(url, places)

    monkeypatch.setattr(checkpoint_shards.dcp, "save", save)
    monkeypatch.setattr(checkpoint_shards, "upload", counted)
    barrier, said = threading.Barrier(3), ([],)

    def process(rank: int) -> None:
        path = tmp_path / ("main" if rank == 0 else "others") / "step-00000005"
        tensors, world = {str(rank): torch.zeros(1)}, Threads(rank, 3, barrier, said)
        if rank:
            return save_shards(path, tensors, world, URL)
        with replace_directory(path):
            save_shards(path, tensors, world, URL)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(process, range(3)))
    assert len(set(folders)) == 3
    assert sorted(sent) == ["shard-1.safetensors", "shard-2.safetensors"]
    here = {path.name: path.read_text() for path in (tmp_path / "main" / "step-00000005").iterdir()}
    assert here == {f"shard-{rank}.safetensors": str(rank) for rank in range(3)}
    assert not list((tmp_path / "others").iterdir())
    assert not remote_files(URL)


def test_a_run_that_begins_removes_what_a_killed_one_left_on_the_way(memory: Any) -> None:
    memory.pipe("/b/run/.shards/0123456789abcdef/shard-1.safetensors", b"gigabytes")
    model = new_model(tiny_config(), head_builder("pretraining"), seed=1)
    RunDirectory(URL).begin({"options": {}}, Checkpoint(model, tiny_tokenizer()))
    names = remote_files(URL)
    assert "run.json" in names
    assert not [name for name in names if name.startswith(".shards")]
