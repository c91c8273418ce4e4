"""What makes a step of the gradients: schedules, groups of weights, Muon; and the FLOPs of a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import get_linear_schedule_with_warmup, get_wsd_schedule

from bothways.batch import PackedBatch
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.tasks.pretraining import BertObjective
from bothways.train.flops import training_flops
from bothways.train.optimizer import build_optimizer
from bothways.train.options import TrainOptions
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_plan import make_plan
from bothways.train.schedule import learning_rate
from tests.train.running import OPTIONS, StopAfter, state_of


@pytest.mark.parametrize("decay", [0.3, 0.8, 1.0])
def test_a_stable_phase_is_transformers_wsd(decay: float) -> None:
    options = TrainOptions(steps=50, lr=0.3, warmup=0.2, decay=decay)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    falling = min(40, int(decay * 50))
    schedule = get_wsd_schedule(
        optimizer, 10, falling, num_stable_steps=40 - falling, warmup_type="linear", decay_type="linear"
    )
    for step in range(50):
        assert learning_rate(step, options) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_schedule_and_groups_are_berts(store: TokenStore) -> None:
    options = TrainOptions(steps=50, lr=0.3, warmup=0.2, weight_decay=0.7)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 50)
    for step in range(50):
        assert learning_rate(step, options) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()
    checkpoint = load_model(store)
    decayed, plain = build_optimizer(checkpoint, options).param_groups
    names = {id(parameter): name for name, parameter in checkpoint.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.7, 0.0)
    assert all(names[id(p)].endswith("weight") and "norm" not in names[id(p)] for p in decayed["params"])
    assert all(names[id(p)].endswith("bias") or "norm" in names[id(p)] for p in plain["params"])


def load_model(store: TokenStore) -> torch.nn.Module:
    from bothways.checkpoint.hugging_face import new_model
    from bothways.model.families import head_builder
    from tests.helpers import tiny_config

    return new_model(tiny_config(), head_builder("pretraining"), 0)


@pytest.mark.parametrize("name", ["clip", "lr"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_rates_that_train_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name}="):
        TrainOptions(**{"steps": 1, "lr": 1.0, name: value})


def test_muon_trains_the_matrices_and_resumes_exactly(store: TokenStore, tmp_path: Path) -> None:
    options = replace(OPTIONS, optimizer="muon", steps=6)
    pretrain(store.directory, tmp_path / "whole", options)
    pretrain(store.directory, tmp_path / "stopped", options, progress=StopAfter(3))
    pretrain(store.directory, tmp_path / "stopped", options)
    assert state_of(tmp_path / "stopped") == state_of(tmp_path / "whole")
    optimizer = build_optimizer(load_model(store), TrainOptions(steps=1, lr=1e-3, optimizer="muon"))
    muon, *_ = optimizer.param_groups
    assert len(muon["params"]) == 2 * 4  # two layers: qkv, output, intermediate, output
    with pytest.raises(UserError, match="optimizer was muon, now adamw"):
        pretrain(store.directory, tmp_path / "whole", replace(options, optimizer="adamw"))


def test_flops_are_those_that_torch_counts(store: TokenStore) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from bothways.model.attention_mask import AttentionMask
    from bothways.model.kernels.eager import attend_eager

    def attend(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
        """The counter sees the matrix products of the written-out attention only."""
        return attend_eager(q, k, v, batch.lengths, mask)[0]

    model = load_model(store)
    batch = make_plan(store, replace(OPTIONS, sequence_length=64, tokens_per_step=2000)).batch(0)
    with FlopCounterMode(display=False) as counter:
        hidden_states = model.encoder(batch, model.head.reads(batch), attend)
        sums = BertObjective().sums(model.head(hidden_states, batch), batch.targets)
        (sums["mlm_loss"] + sums["nsp_loss"]).backward()
    hidden, pairs = model.config.hidden_size, batch.num_sequences
    pooler = 3 * 2 * pairs * (hidden**2 + 2 * hidden)
    assert counter.get_total_flops() == training_flops(model, batch) + pooler
