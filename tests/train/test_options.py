"""Options of the verbs and of the loop: one source of types and defaults, and what is derived."""

from __future__ import annotations

import subprocess
import sys
import typing
from dataclasses import fields, replace
from typing import Any, get_type_hints

import pytest

from bothways.errors import UserError
from bothways.model.families import FAMILIES
from bothways.tasks.objectives import OBJECTIVES
from bothways.train.finetune_options import FinetuneOptions, default_epochs
from bothways.train.options import TrainOptions, derive_train_options
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import FamilyName, ObjectiveName, PretrainOptions
from bothways.train.pretrain_plan import loop_options, validation_tokens
from tests.helpers import tiny_config

DERIVED = {
    "steps",
    "decay",
    "lr",
    "evaluate_every",
    "checkpoint_every",
}  # from the data and the model, or the time, where the user says nothing


@pytest.mark.parametrize("kind", [PretrainOptions, FinetuneOptions])
def test_an_option_of_the_loop_has_its_type_and_default_in_every_verb(kind: type) -> None:
    hints, loop_hints = get_type_hints(kind), get_type_hints(TrainOptions)
    shared = (hints.keys() & loop_hints.keys()) - DERIVED
    assert {
        "warmup",
        "weight_decay",
        "clip",
        "seed",
        "micro_batch_tokens",
        "log_every",
        "device",
        "precision",
    } <= shared
    assert {name: hints[name] for name in shared} == {name: loop_hints[name] for name in shared}
    assert {name: getattr(kind, name) for name in shared} == {name: getattr(TrainOptions, name) for name in shared}


@pytest.mark.parametrize("kind", [PretrainOptions, FinetuneOptions])
def test_every_shared_option_reaches_the_loop(kind: type) -> None:
    others = {
        "steps": 7, "lr": 0.5, "warmup": 0.3, "decay": 0.6, "weight_decay": 0.4, "clip": 2.0, "seed": 9,
        "micro_batch_tokens": 11, "log_every": 12, "evaluate_every": 13, "checkpoint_every": 14, "keep_checkpoints": 15,
        "device": "cpu", "precision": "float32", "compile": "off", "parallel": "fsdp", "optimizer": "adamw",
        "tensorboard": True,
        "profile": True,
    }  # fmt: skip
    given = {field.name: others[field.name] for field in fields(kind) if field.name in others}
    assert {field.name for field in fields(kind)} & {field.name for field in fields(TrainOptions)} <= given.keys()
    made = derive_train_options(kind(**given), kind)
    assert {name: getattr(made, name) for name in given} == given


def test_what_the_user_leaves_open_is_derived() -> None:
    wide, narrow = replace(tiny_config(), hidden_size=768), tiny_config()
    by_default = loop_options(PretrainOptions(steps=200), narrow)
    assert (by_default.lr, by_default.beta2) == (2e-3, 0.98)
    assert (by_default.evaluate_every, by_default.checkpoint_every) == (20, 20)
    assert loop_options(PretrainOptions(steps=200), wide).beta2 == 0.999
    assert loop_options(PretrainOptions(steps=20_000), narrow).checkpoint_every == 500
    said = loop_options(PretrainOptions(steps=200, lr=0.1, evaluate_every=0, checkpoint_every=3), narrow)
    assert (said.lr, said.evaluate_every, said.checkpoint_every) == (0.1, 0, 3)
    assert [default_epochs("standard", steps) for steps in (1, 10, 11, 66, 67, 1000)] == [20, 20, 19, 4, 3, 3]
    assert default_epochs("quick", 1) == 1


def test_types_are_checked_before_anything_is_read() -> None:
    for wrong, message in (
        ({"steps": "9"}, "steps is '9', expected int"),
        ({"phases": "128:0.9"}, "phases is '128:0.9', expected tuple"),
        ({"objective": "bart"}, "objective is 'bart', expected 'bert' or"),
        ({"whole_word_masking": 1}, "whole_word_masking is 1, expected bool"),
        ({"seed": -1}, "seed=-1: expected 0 to"),
    ):
        with pytest.raises(UserError, match=message):
            pretrain("no store", "no run", PretrainOptions(**wrong))  # type: ignore[arg-type]


def held_out(described: dict[str, Any] | None = None, **options: Any) -> tuple[int, int]:
    given = PretrainOptions(**options)
    tokens = validation_tokens(given, described)
    return tokens.during, tokens.at_end


def test_an_evaluation_reads_at_most_a_tenth_of_what_is_trained_between_two() -> None:
    assert held_out(steps=2000, tokens_per_step=8192) == (163_840, 200_000)  # every 200 steps: 1,638,400 trained
    assert held_out(steps=1000, tokens_per_step=1000, evaluate_every=500) == (50_000, 200_000)
    assert held_out(steps=1_000_000, tokens_per_step=131_072) == (200_000, 200_000)
    assert held_out(steps=10, tokens_per_step=100) == (4096, 200_000)  # fewer would say nothing
    assert held_out(steps=1000, tokens_per_step=1000, evaluate_every=0) == (100_000, 200_000)
    phases = ("128:0.5:8192", "512:0.5:4096")
    assert held_out(steps=2000, tokens_per_step=100, phases=phases) == (81_920, 200_000)  # of the smallest step
    assert held_out(steps=2000, validation_tokens=7) == (7, 7)


def test_a_run_of_an_earlier_bothways_goes_on_with_the_number_that_it_wrote_down() -> None:
    assert held_out(steps=20, described={"validation_tokens": 200_000}) == (200_000, 200_000)
    assert held_out(steps=20, described={"validation_tokens": None}) == (4096, 200_000)
    assert held_out(steps=20, described={"validation_tokens": 200_000}, validation_tokens=9) == (9, 9)


def test_names_that_help_shows_without_torch_are_those_of_the_registries() -> None:
    assert typing.get_args(ObjectiveName) == tuple(OBJECTIVES)
    assert typing.get_args(FamilyName) == tuple(FAMILIES)


def test_the_help_of_verbs_needs_no_torch() -> None:
    verbs = ["tokenizer", "prepare", "pretrain", "fill", "classify", "tag", "answer", "embed", "similar", "rerank"]
    verbs += ["generate", "score", "suggest", "chat", "explain", "serve", "join", "info"]
    program = (
        "import sys\nfrom bothways.cli import main\nfor verb in sys.argv[1:]:\n    try:\n"
        "        main([verb, '--help'])\n    except SystemExit:\n        pass\n"
        "    if 'torch' in sys.modules:\n        sys.exit(verb)"
    )
    asked = subprocess.run([sys.executable, "-c", program, *verbs], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, f"{asked.stderr}: torch is imported, which takes seconds"
    assert "--objective bert|order|mlm|roberta|electra|causal" in " ".join(asked.stdout.split())
    assert asked.stdout.count("usage: bothways") == len(verbs)
