"""The bytes of a checkpoint, of each Hugging Face class that is written: tensors, config, tokenizer, bothways.json, and
the files of sentence-transformers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import bothways as bw
from tests.nets import adapter
from tests.nets.golden import as_json, check, run
from tests.nets.models import NAMES


def digests(directory: Path, place: Path) -> dict[str, str]:
    """Size and hash of each file. place: a folder whose name an export notes, and which is another in each run."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): digest(path, place) for path in files}


def digest(path: Path, place: Path) -> str:
    content = path.read_bytes().replace(str(place).encode(), b"models")
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:32]}"


def saved(models: Path, name: str, out: Path) -> Path:
    adapter.save(bw.load(models / name, device="cpu"), out)
    return out


def snapshot(models: Path, scratch: Path) -> str:
    """What each model is when it is saved, and what export makes of one that was only pretrained."""
    found = {name: digests(saved(models, name, scratch / name), models) for name in NAMES}
    for pooling in ("mean", "cls"):
        out = scratch / f"exported-{pooling}"
        run("export", "sentence-transformers", models / "pretraining", "--out", out, "--pooling", pooling)
        found[out.name] = digests(out, models)
    return as_json(found)


def test_saved_checkpoints_have_the_bytes_they_had(models: Path, tmp_path: Path) -> None:
    check("checkpoints.json", snapshot(models, tmp_path), "checkpoints")


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_read_and_written_under_its_name(models: Path, tmp_path: Path, name: str) -> None:
    loaded = bw.load(models / name, device="cpu")
    assert loaded.report is not None
    assert not loaded.report.newly_initialised
    assert not loaded.report.unused
    adapter.save(loaded, tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (models / name, tmp_path / "out"))
    assert sorted(before) == sorted(after)
    assert all(np.array_equal(before[one], after[one]) for one in before)
