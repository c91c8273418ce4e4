"""Every recipe that comes with Bothways runs."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from bothways import verbs
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.demo.run import DemoArguments
from bothways.model.families import head_builder
from bothways.tasks import TASKS
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import phases_of
from bothways.train.run import RunDirectory
from bothways.verbs.column_arguments import column_arguments
from bothways.verbs.finetune import FinetuneArguments
from bothways.verbs.flags import help_texts, joined_options
from bothways.verbs.recipes import read_recipe
from bothways.verbs.tokenizer import TokenizerArguments
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_config, tiny_tokenizer

MODULES = [importlib.import_module(f"bothways.verbs.{found.name}") for found in pkgutil.iter_modules(verbs.__path__)]
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
FINETUNING = {"answers": "answer", "entities": "tag", "sentence-vectors": "similar"}  # recipes of that alone, and tasks
OF_A_VOCABULARY = ("distilled", "mini-distilled")  # that of their teacher, or of the model that they go on from
PRETRAINING = [recipe for recipe in RECIPES if recipe.stem not in FINETUNING]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("recipes")
    write_corpus(folder / "c.jsonl", documents=100)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


@pytest.mark.parametrize("recipe", PRETRAINING, ids=lambda path: path.stem)
def test_a_recipe_trains_a_tiny_model(recipe: Path, store: TokenStore, tmp_path: Path) -> None:
    own = PretrainOptions(**read_recipe(str(recipe), "pretrain", PretrainOptions))
    assert phases_of(own)[-1].end == own.steps
    steps = 4 if own.phases else 2
    phases = ("128:0.5", "512:0.5:700") if own.phases else ()
    if own.teacher is not None:
        made = new_model(tiny_config(max_position_embeddings=128), head_builder("masked-LM"), seed=1)
        save_checkpoint(Checkpoint(made, tiny_tokenizer()), tmp_path / own.teacher)
        own = dataclasses.replace(own, teacher=str(tmp_path / own.teacher))
    small = dataclasses.replace(own, size="tiny", steps=steps, tokens_per_step=600, phases=phases, evaluate_every=1)
    result = pretrain(store.directory, tmp_path / "run", small)
    assert result.steps == steps
    last = RunDirectory(tmp_path / "run").metrics()[-1]
    loss = "eval_lm_loss" if own.objective == "causal" else "eval_mlm_loss"
    assert 0 < last[loss] < 1.5 * math.log(80)  # the vocabulary has 80 pieces
    if recipe.stem not in OF_A_VOCABULARY:
        read_recipe(str(recipe), "tokenizer", TokenizerArguments)


@pytest.mark.parametrize("name", FINETUNING)
def test_a_recipe_of_fine_tuning_alone_is_read(name: str) -> None:
    kind = joined_options("FinetuneArguments", FinetuneArguments, TASKS[FINETUNING[name]].Options)
    assert read_recipe(name, "finetune", kind)["freeze_layers"] == 2  # whose weights are the encoder's


def test_every_option_says_what_it_is() -> None:
    found: list[type] = [DemoArguments]
    for module in MODULES:
        found += [value for name, value in vars(module).items() if name.endswith("Arguments") and is_dataclass(value)]
    assert len(found) > 12
    for kind in [*found, column_arguments(), *(task.Options for task in TASKS.values())]:
        lacking = {field.name for field in fields(kind)} - set(help_texts(kind))
        assert not lacking, (kind.__name__, lacking)
