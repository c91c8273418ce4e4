"""How a step, a loss that compares the whole step, and an evaluation are shared out among processes; no process is
started here (`test_finetune_distributed.py` starts them)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.checkpoint.hugging_face import new_model
from bothways.data.prepare import PrepareOptions, prepare
from bothways.data.row_plan import OF_STEP, STEP_SEQUENCES, RowPlan, RowPlanOptions
from bothways.data.tables import TableOptions
from bothways.errors import UserError
from bothways.inference import engine
from bothways.tasks.objectives import find_pretraining
from bothways.train.distributed import World
from bothways.train.evaluate import RowSet
from bothways.train.finetune import make_task
from bothways.train.loop import evaluate_objective
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_validation_plan
from bothways.train.shared_forward import run_shared
from bothways.train.whole_step import WholeStepObjective
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_config, tiny_tokenizer
from tests.train.test_soft_scores import CASES

RANKS = 3


def rows_of(case: str) -> RowSet:
    name, own, rows = CASES[case]
    return RowSet.read(rows, make_task(name, own), False, TableOptions()).fitted()


def plan_of(rows: RowSet, batch_size: int) -> RowPlan:
    encoded = rows.task.add_targets(rows.encode(tiny_tokenizer(), 12), rows.rows)
    options = RowPlanOptions(batch_size, keep_whole=rows.task.keep_whole)
    return RowPlan(encoded, rows.task.collate, options, {})


def sequences_of(batches: Sequence[PackedBatch]) -> list[bytes]:
    return sorted(ids.numpy().tobytes() for batch in batches for ids in batch.input_ids.split(batch.lengths.tolist()))


@pytest.mark.parametrize("case", ["classify", "similar", "paraphrases", "tag", "answer"])
@pytest.mark.parametrize("batch_size", [2, 4])
def test_ranks_have_each_row_of_a_step_once(case: str, batch_size: int) -> None:
    plan = plan_of(rows_of(case), batch_size)
    for step in range(plan.steps(2)):
        whole = plan.micro_batches(step, 0, 1, 1000)
        shares = [plan.micro_batches(step, rank, RANKS, 30) for rank in range(RANKS)]
        assert sequences_of([batch for share in shares for batch in share]) == sequences_of(whole)
        assert shares[0]  # which others run, where they have none
        if batch_size == 2 and case in ("classify", "similar", "paraphrases"):
            assert not shares[2]


@dataclass(frozen=True)
class Gathering(World):
    """A process whose others are not there. said: what it gathers of all."""

    said: Sequence[Any] = ()

    def gather(self, value: Any) -> list[Any]:
        return list(self.said) or [value]

    def gather_rows(self, own: Tensor, rows: Sequence[int]) -> list[Tensor]:
        assert [len(share) for share in self.said] == list(rows)
        return [share.detach().clone() for share in self.said]


@pytest.mark.parametrize("batch_size", [2, 6])
def test_a_loss_over_the_whole_step_is_that_of_one_process(batch_size: int) -> None:
    """Sums, counts, and the sum of the gradients over processes; of two rows the third process has none."""
    rows = rows_of("paraphrases")
    model, plan = new_model(tiny_config(), rows.task.head, seed=1).double().eval(), plan_of(rows, batch_size)

    def gradients() -> list[Tensor]:
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    (whole,) = plan.micro_batches(0, 0, 1, 1000)
    expected = rows.task.sums(model(whole), whole.targets)
    expected["loss"].backward()
    summed = gradients()
    of_first = plan.micro_batches(0, 0, RANKS, 1000)
    batches = [(plan.micro_batches(0, rank, RANKS, 1000) or of_first)[-1] for rank in range(RANKS)]
    sizes = batches[0].targets[STEP_SEQUENCES].tolist()
    assert sum(sizes) == whole.num_sequences
    assert f"{OF_STEP}pairs" in batches[0].targets
    vectors = [model(batch)[:size] for batch, size in zip(batches, sizes, strict=True)]
    totals: dict[str, float] = {"loss": 0.0, "accuracy": 0.0}
    counts = dict(totals)
    over_ranks = [torch.zeros_like(gradient) for gradient in summed]
    for rank, batch in enumerate(batches):
        objective = WholeStepObjective(rows.task, Gathering(rank, RANKS, vectors))
        model.zero_grad()
        sums = objective.sums(model(batch), batch.targets)
        sums["loss"].backward()
        for total, gradient in zip(over_ranks, gradients(), strict=True):
            total += gradient
        for name, count in objective.counts(batch.targets).items():
            totals[name] += float(sums[name].detach())
            counts[name] += count
    assert counts == rows.task.counts(whole.targets)
    assert totals == pytest.approx({name: float(value.detach()) for name, value in expected.items()})
    for total, gradient in zip(over_ranks, summed, strict=True):
        torch.testing.assert_close(total, gradient, rtol=1e-9, atol=1e-12)


def test_another_file_on_another_machine_is_refused() -> None:
    world = Gathering(0, 3, [{"store": "a"}, {"store": "a"}, {"store": "b"}])
    with pytest.raises(UserError, match="rank 2 of 3 reads another store than rank 0; give all the same"):
        world.require_same(store="a")


def test_what_processes_read_together_is_what_one_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, in order; also where there are more processes than batches. An error of one is an error of all."""
    monkeypatch.setattr(engine, "inference_batch_tokens", lambda device: 12)
    rows = rows_of("classify")
    model, encoded = new_model(tiny_config(), rows.task.head, seed=1).eval(), rows.encode(tiny_tokenizer(), 12)
    forward = engine.Forward(model, lambda scores, *_: list(scores.numpy()), encoded, torch.device("cpu"), ())
    whole = forward.run()
    for processes in (2, 3, 9):
        said = []
        for rank in range(processes):
            share = forward.run_share(rank, processes)
            own = np.array([index for index, result in enumerate(share) if result is not None], dtype=np.int64)
            said.append(("", own, [share[index] for index in own]))
        found = run_shared(Gathering(0, processes, said))(forward)
        assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))
    with pytest.raises(UserError, match="the scores are NaN"):
        run_shared(Gathering(1, 2, [("the scores are NaN", np.array([], dtype=np.int64), []), said[1]]))(forward)


def test_a_held_out_loss_is_that_of_one_process_to_the_bit(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=60)
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store", PrepareOptions(validation=0.4))
    plan = make_validation_plan(store, PretrainOptions(sequence_length=32))
    assert plan is not None
    objective = find_pretraining("bert").objective
    model = new_model(tiny_config(), objective.head, seed=1)

    def figures(world: World, rank: int) -> dict[str, float]:
        return evaluate_objective(
            model, objective, plan.evaluation_share(64, 2000, rank, world.size), torch.float32, world
        )

    class Telling(World):
        def gather(self, value: Any) -> list[Any]:
            told.append(value)
            return [value]

    expected = figures(World(), 0)
    for processes in (2, 4):
        told: list[Any] = []
        for rank in range(processes):
            figures(Telling(rank, processes), rank)
        batches = list(plan.evaluation_batches(64, 2000))
        shares = [list(plan.evaluation_share(64, 2000, rank, processes)) for rank in range(processes)]
        assert len({len(share) for share in shares}) == 1  # as all must run a model that is sharded
        assert sum(counts for share in shares for _, counts in share) == len(batches)
        assert figures(Gathering(0, processes, told), 0) == expected
