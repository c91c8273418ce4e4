"""ELECTRA trained on: its generator is the run's, or a new one, and which is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bothways.checkpoint.hugging_face import Checkpoint
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.progress import Progress
from bothways.train import pretrain as pretraining
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.run import RunDirectory
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer

OPTIONS = PretrainOptions(
    objective="electra", size="tiny", steps=2, tokens_per_step=64, sequence_length=32, max_position_embeddings=64,
    precision="float32",
)  # fmt: skip


class Lines(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__("test", shown=False)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("electra")
    write_corpus(folder / "c.jsonl", documents=20)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


@pytest.fixture(scope="module")
def run(store: TokenStore) -> Path:
    path = store.directory.parent / "run"
    pretrain(store, path, OPTIONS, quiet=True)
    return path


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The generator's parameters as each run begins with them."""
    found: list[dict[str, torch.Tensor]] = []
    begin = RunDirectory.begin

    def kept(self: RunDirectory, described: dict[str, object], checkpoint: Checkpoint) -> None:
        (generator,) = checkpoint.model.head.helpers()
        found.append({name: tensor.detach().clone() for name, tensor in generator.named_parameters()})
        begin(self, described, checkpoint)

    monkeypatch.setattr(pretraining.RunDirectory, "begin", kept)
    return found


def test_a_run_as_the_model_takes_its_generator_along(
    store: TokenStore, run: Path, begun: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    lines = Lines()
    pretrain(store, tmp_path / "on", replace(OPTIONS, model=str(run), seed=5), progress=lines)
    saved = load_file(run / "generator" / "model.safetensors")
    ours = begun[0]
    assert torch.equal(ours["head.lm.dense.weight"], saved["generator_predictions.dense.weight"])
    assert torch.equal(ours["encoder.embeddings.token.weight"], saved["electra.embeddings.word_embeddings.weight"])
    layers = [name for name in saved if ".layer." in name and name.endswith("weight")]
    assert len(layers) > 10
    assert sum(saved[name].sum().item() for name in layers) == pytest.approx(
        sum(tensor.sum().item() for name, tensor in ours.items() if ".layers." in name and name.endswith("weight"))
    )
    assert f"the generator goes on with the weights in {run / 'generator'}" in lines.said
    assert any("everything fits" in line for line in lines.said), lines.said


def test_a_model_alone_gets_a_new_generator(
    store: TokenStore, run: Path, begun: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    lines = Lines()
    pretrain(store, tmp_path / "on", replace(OPTIONS, model=str(run / "model"), seed=5), progress=lines)
    saved = load_file(run / "generator" / "model.safetensors")
    assert not torch.equal(begun[0]["head.lm.dense.weight"], saved["generator_predictions.dense.weight"])
    assert torch.equal(begun[0]["encoder.embeddings.token.weight"], saved["electra.embeddings.word_embeddings.weight"])
    assert any(line.startswith("the generator is new, with random weights") for line in lines.said)


def test_a_generator_of_another_shape_is_refused(store: TokenStore, run: Path, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "other", replace(OPTIONS, size="mini", steps=1), quiet=True)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "model").symlink_to(run / "model")
    (tmp_path / "mixed" / "generator").symlink_to(tmp_path / "other" / "generator")
    with pytest.raises(UserError, match="is not the generator of"):
        pretrain(store, tmp_path / "on", replace(OPTIONS, model=str(tmp_path / "mixed")), quiet=True)
