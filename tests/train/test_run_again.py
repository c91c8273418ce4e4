"""A run given again: longer or shorter, used before it has finished, and begun anew by overwriting."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import bothways as bw
from bothways.checkpoint.unfinished import UnfinishedRunWarning
from bothways.cli import main
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.options import TrainOptions
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.run import RunDirectory
from bothways.train.schedule import learning_rate
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.running import StopAfter, state_of
from tests.train.test_finetune import FAST, NOISE, ROWS

OPTIONS = PretrainOptions(
    size="tiny", steps=6, tokens_per_step=200, sequence_length=32, log_every=1, evaluate_every=50,
    checkpoint_every=100, max_position_embeddings=64, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("again")
    write_corpus(folder / "c.jsonl", documents=60)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


def rates(run: Path) -> list[float]:
    return [line["lr"] for line in RunDirectory(run).metrics() if "lr" in line]


def tokens(run: Path) -> list[int]:
    return [line["tokens"] for line in RunDirectory(run).metrics() if "lr" in line]


def given(store: TokenStore, run: Path, options: PretrainOptions, stop: int = -1) -> list[str]:
    """Pretrain; returns what was said."""
    progress = StopAfter(stop)
    pretrain(store.directory, run, options, progress=progress)
    return progress.said


def test_a_stopped_run_goes_on_as_a_longer_one_is(store: TokenStore, tmp_path: Path) -> None:
    """The rates of its later steps, and all of its batches, are those of a run of that many steps."""
    given(store, tmp_path / "whole", replace(OPTIONS, steps=12))
    given(store, tmp_path / "run", OPTIONS, stop=3)
    said = given(store, tmp_path / "run", replace(OPTIONS, steps=12))
    rose = [learning_rate(3, TrainOptions(steps, 2e-3)) for steps in (6, 12)]
    expected = (
        "resuming at step 3 of 12, which were 6: the schedule goes on as a run of 12 steps has it, the learning rate "
        f"rises from {rose[0]:.1e} to {rose[1]:.1e}"
    )
    assert expected in said
    assert rates(tmp_path / "run")[3:] == rates(tmp_path / "whole")[3:]
    assert tokens(tmp_path / "run") == tokens(tmp_path / "whole")
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["options"]["steps"] == 12
    assert "--steps 12" in described["command"]
    assert given(store, tmp_path / "run", replace(OPTIONS, steps=12))[-1].endswith("run: done already, 12 steps")


def test_a_finished_run_goes_on_with_a_rate_that_rises_again(store: TokenStore, tmp_path: Path) -> None:
    given(store, tmp_path / "run", OPTIONS)
    first = load_file(tmp_path / "run" / "model" / "model.safetensors")
    said = given(store, tmp_path / "run", replace(OPTIONS, steps=9), stop=7)
    assert any("the learning rate rises from 0.0e+00 to 6.7e-04" in line for line in said)  # 2e-3 × 3 / 9
    assert not (tmp_path / "run" / "model").exists()
    given(store, tmp_path / "run", replace(OPTIONS, steps=9))
    second = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert RunDirectory(tmp_path / "run").metrics()[-1]["step"] == 9


def test_a_stopped_run_is_finished_as_it_is_by_fewer_steps(store: TokenStore, tmp_path: Path) -> None:
    given(store, tmp_path / "run", OPTIONS, stop=4)
    before = load_file(RunDirectory(tmp_path / "run").checkpoints()[-1] / "model.safetensors")
    said = given(store, tmp_path / "run", replace(OPTIONS, steps=2))
    assert any(line.endswith("4 steps are done, so a run of 2 steps ends here") for line in said)
    after = bw.load(tmp_path / "run").model
    assert all(torch.equal(before[name], parameter) for name, parameter in after.named_parameters())


@pytest.mark.parametrize(
    "options",
    [{"mask_rate": 0.3, "mask_rate_end": 0.15}, {"phases": ("16:0.5", "32:0.5"), "sequence_length": 128}],
    ids=["masks", "phases"],
)
def test_what_depends_on_the_length_follows_it(store: TokenStore, tmp_path: Path, options: dict[str, object]) -> None:
    """A rate that falls over the run, and phases: later batches are those of a run of that many steps."""
    short = replace(OPTIONS, **options)  # type: ignore[arg-type]
    given(store, tmp_path / "whole", replace(short, steps=10))
    given(store, tmp_path / "run", short, stop=2)
    given(store, tmp_path / "run", replace(short, steps=10))
    assert tokens(tmp_path / "run") == tokens(tmp_path / "whole")
    with pytest.raises(UserError, match=r"that was made otherwise: (mask_rate|sequence_length) was"):
        given(store, tmp_path / "run", OPTIONS)


def test_finetuning_for_more_epochs_keeps_the_best(pretrained: Path, tmp_path: Path) -> None:
    short, long = (FinetuneOptions(epochs=epochs, **FAST) for epochs in (3, 5))  # type: ignore[arg-type]
    whole = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "whole", short)
    finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", short)
    progress = StopAfter(whole.training.steps + 1)
    finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", long, progress=progress)
    assert (tmp_path / "run" / "best").exists()
    result = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", long)
    assert result.training.steps == 5 * 5  # 36 rows by 8
    accuracies = [line["eval_accuracy"] for line in RunDirectory(tmp_path / "run").metrics() if "eval_accuracy" in line]
    assert len(accuracies) == 5
    assert result.metrics is not None
    assert result.metrics["accuracy"] == max(accuracies)


def test_finetuning_cut_short_before_its_first_evaluation_is_evaluated(pretrained: Path, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=3, **FAST)  # type: ignore[arg-type]
    finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", options, progress=StopAfter(2))
    result = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", replace(options, epochs=None, steps=2))
    assert result.metrics is not None
    assert 0 <= result.metrics["accuracy"] <= 1
    assert bw.load(tmp_path / "run").classify("the dog runs.").label in ("animal", "thing")


def test_a_stopped_run_is_the_model_of_its_last_checkpoint(
    store: TokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Python and by the verbs; the command that is named goes on with it."""
    run = tmp_path / "my run"
    given(store, run, OPTIONS, stop=4)
    with pytest.warns(
        UnfinishedRunWarning, match=r"has not finished \(step 4 of 6\): its last checkpoint is used"
    ) as found:
        model = bw.load(run)
    assert found[0].filename == __file__
    saved = load_file(RunDirectory(run).checkpoints()[-1] / "model.safetensors")
    assert all(torch.equal(saved[name], parameter) for name, parameter in model.model.named_parameters())
    assert main(["fill", str(run), "the [MASK] runs."]) == 0
    said = capsys.readouterr().err
    command = said.partition("`")[2].partition("` goes on with it")[0]
    with pytest.warns(UnfinishedRunWarning):
        finetune("classify", run, ROWS, None, tmp_path / "t", FinetuneOptions(steps=1, **FAST))  # type: ignore[arg-type]
    words = shlex.split(command)
    assert words[:2] == ["bothways", "pretrain"]
    assert main(words[1:]) == 0
    given(store, tmp_path / "whole", OPTIONS)
    assert state_of(run)[0] == state_of(tmp_path / "whole")[0]


def test_a_torn_last_checkpoint_gives_way_to_the_one_before(store: TokenStore, tmp_path: Path) -> None:
    given(store, tmp_path / "run", replace(OPTIONS, checkpoint_every=2), stop=5)
    *_, before, last = RunDirectory(tmp_path / "run").checkpoints()
    (last / "model.safetensors").write_bytes(b"torn")
    with pytest.warns(UnfinishedRunWarning):
        model = bw.load(tmp_path / "run")
    saved = load_file(before / "model.safetensors")
    assert all(torch.equal(saved[name], parameter) for name, parameter in model.model.named_parameters())


def test_a_stopped_classifier_answers_with_its_best_epoch_or_its_last_checkpoint(
    pretrained: Path, tmp_path: Path
) -> None:
    options = FinetuneOptions(epochs=3, **FAST)  # type: ignore[arg-type]
    for name, rows, used in (("with", ROWS, "best epoch so far"), ("without", None, "last checkpoint")):
        finetune("classify", pretrained, ROWS, rows, tmp_path / name, options, progress=StopAfter(7))
        with pytest.warns(
            UnfinishedRunWarning, match=f"step 7 of 15.: its {used} is used; `bothways.finetune.'classify'"
        ):
            classified = bw.load(tmp_path / name).classify("the dog runs.")
        assert classified.label in ("animal", "thing")


def test_a_run_of_an_earlier_bothways_is_a_model_once_it_has_gone_on(store: TokenStore, tmp_path: Path) -> None:
    given(store, tmp_path / "run", OPTIONS, stop=3)
    shutil.rmtree(tmp_path / "run" / "start")
    with pytest.raises(UserError, match="not finished, and it was begun by an earlier Bothways; `bothways pretrain "):
        bw.load(tmp_path / "run")
    given(store, tmp_path / "run", OPTIONS, stop=4)
    with pytest.warns(UnfinishedRunWarning, match="step 4 of 6"):
        bw.load(tmp_path / "run")


def test_overwriting_replaces_a_run_and_nothing_else(store: TokenStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given(store, run, OPTIONS)
    before = state_of(run)
    other = replace(OPTIONS, seed=1, steps=2)
    for wrong in (replace(other, sequence_length=1000), replace(other, model=str(run))):
        with pytest.raises(UserError, match=r"above what the model reads|would be removed"):
            pretrain(store.directory, run, wrong, overwrite=True)
    assert state_of(run) == before
    pretrain(store.directory, run, other, overwrite=True, progress=StopAfter(-1))
    assert [path.name for path in RunDirectory(run).checkpoints()] == ["step-00000002"]
    assert json.loads((run / "run.json").read_text())["options"]["seed"] == 1
    (run / "notes.md").write_text("precious")
    with pytest.raises(UserError, match=r"run holds something else \(notes\.md\)"):
        pretrain(store.directory, run, OPTIONS, overwrite=True)


def test_a_process_that_torchrun_starts_again_does_not_overwrite(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(store, tmp_path / "run", OPTIONS, stop=3)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    progress = StopAfter(-1)
    pretrain(store.directory, tmp_path / "run", OPTIONS, overwrite=True, progress=progress)
    assert "resuming at step 3 of 6" in progress.said


def test_a_run_that_is_refused_at_once_leaves_no_folder(store: TokenStore, tmp_path: Path) -> None:
    for wrong in ({"sequence_length": 1000}, {"size": "tinny"}, {"phases": ("16:0.5",)}):
        with pytest.raises(UserError):
            pretrain(store.directory, tmp_path / "a" / "run", replace(OPTIONS, **wrong))  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()


def test_finetuning_says_what_has_changed(pretrained: Path, tmp_path: Path) -> None:
    table, options = tmp_path / "train.jsonl", FinetuneOptions(steps=2, **FAST)  # type: ignore[arg-type]
    table.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    finetune("classify", pretrained, table, None, tmp_path / "run", options)
    table.write_text("".join(json.dumps(row) + "\n" for row in NOISE))
    with pytest.raises(UserError, match=r"otherwise: \S*train\.jsonl has changed since; overwrite=True begins anew"):
        finetune("classify", pretrained, table, None, tmp_path / "run", options)
    finetune("classify", pretrained, table, None, tmp_path / "run", options, overwrite=True)
    other = tmp_path / "other.jsonl"
    other.write_text(table.read_text().replace("dog", "cat"))
    with pytest.raises(UserError, match=r"train was \S*train\.jsonl, now \S*other\.jsonl"):
        finetune("classify", pretrained, other, None, tmp_path / "run", options)
    shutil.copy(table, other)  # the same rows by another name
    assert finetune("classify", pretrained, other, None, tmp_path / "run", options).training.steps == 2
