"""Distillation in pretraining: what the teacher shows is what transformers computes, and a run with it is a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertForPreTraining

from bothways.batch import PackedBatch
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.checkpoint.kept_layers import keep_layers
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.inference.teacher import ModelTeacher
from bothways.model.distillation import Lesson, StudentScores
from bothways.model.families import find_family, head_builder
from bothways.model.relations import relation_loss
from bothways.tasks.distillation import DistilledObjective
from bothways.tasks.pretraining import BertObjective
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan
from bothways.train.run import RunDirectory
from bothways.train.teaching import with_teacher
from tests.data.test_prepare import write_corpus
from tests.helpers import Run, padded, tiny_config, tiny_tokenizer, unpadded
from tests.train.running import StopAfter, state_of

LOSSES = ("relation", "soft")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("teaching")
    write_corpus(folder / "c.jsonl", documents=60)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers of 48, with weights so large that its tokens do not attend to all alike."""
    config = tiny_config(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, initializer_range=0.2)
    return saved(tmp_path_factory.mktemp("teacher") / "teacher", "pretraining", config)


def saved(path: Path, head: Any, config: Any) -> Path:
    save_checkpoint(Checkpoint(new_model(config, head_builder(head), seed=5), tiny_tokenizer()), path)
    return path


def options(by: Path, **others: Any) -> PretrainOptions:
    return replace(
        PretrainOptions(
            size="tiny", steps=6, tokens_per_step=300, sequence_length=32, dropout=0.1, log_every=2, evaluate_every=3,
            checkpoint_every=100, max_position_embeddings=64, precision="float32", teacher=str(by),
            relation_heads=8,
        ),
        **others,
    )  # fmt: skip


def objective_of(store: TokenStore, asked: PretrainOptions) -> DistilledObjective:
    made = with_teacher(BertObjective(), store, asked, print).objective
    assert isinstance(made, DistilledObjective)
    return made


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("losses", [("relation",), ("relation", "soft"), ("relation", "hidden"), (*LOSSES, "hidden")])
def test_a_lesson_is_what_transformers_computes(
    layer: int, losses: tuple[str, ...], teacher: Path, store: TokenStore
) -> None:
    batch = make_plan(store, options(teacher)).batch(0)
    lesson = ModelTeacher(load_checkpoint(teacher).model, layer, losses, torch.float32)(batch)
    theirs = BertForPreTraining.from_pretrained(teacher).eval()
    with torch.no_grad():
        found = theirs(**padded(batch), output_hidden_states=True)
    attention = theirs.bert.encoder.layer[layer - 1].attention.self
    with torch.no_grad():
        expected = [part(found.hidden_states[layer - 1]) for part in (attention.query, attention.key, attention.value)]
    for ours, other in zip(lesson.projections, expected, strict=True):
        torch.testing.assert_close(ours.flatten(1), unpadded(other, batch), rtol=1e-4, atol=1e-4)
    if "hidden" in losses:
        assert lesson.hidden is not None
        torch.testing.assert_close(lesson.hidden, unpadded(found.hidden_states[layer], batch), rtol=1e-4, atol=1e-4)
    if "soft" in losses:
        assert lesson.mlm is not None
        logits = unpadded(found.prediction_logits, batch)[batch.targets["mlm_index"]]
        torch.testing.assert_close(lesson.mlm.logits, logits, rtol=1e-4, atol=1e-4)
    assert (lesson.hidden is None, lesson.mlm is None) == ("hidden" not in losses, "soft" not in losses)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_losses_are_their_formulas_and_reach_every_weight(temperature: float, store: TokenStore, teacher: Path) -> None:
    asked = options(teacher, teacher_temperature=temperature, teacher_losses=("relation", "soft", "hidden"))
    objective = objective_of(store, asked)
    config = tiny_config(hidden_size=48, num_attention_heads=6, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    model = new_model(config, objective.head, seed=2).double()
    batch = make_plan(store, asked).batch(0)
    plain = new_model(config, BertObjective().head, seed=2).double()
    scores = model(batch)
    sums = objective.sums(scores, batch.targets)
    lesson = objective.teacher(batch)
    expected = expected_losses(scores, lesson, temperature, batch)
    for name, value in expected.items():
        torch.testing.assert_close(sums[name], value.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums["mlm_loss"], BertObjective().sums(plain(batch), batch.targets)["mlm_loss"])
    assert objective.counts(batch.targets)["relation_loss"] == batch.num_tokens
    assert objective.counts(batch.targets)["hidden_loss"] == batch.num_tokens
    assert objective.counts(batch.targets)["soft_loss"] == len(batch.targets["mlm_labels"])
    for name in ("soft_loss", "hidden_loss"):
        parameters = [p for p in model.parameters() if p.requires_grad]
        grads, theirs = (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in (sums[name], expected[name].double())
        )
        torch.testing.assert_close(grads, theirs, rtol=1e-4, atol=1e-5)


def expected_losses(scores: StudentScores, lesson: Lesson, temperature: float, batch: PackedBatch) -> dict[str, Tensor]:
    assert lesson.mlm is not None
    assert lesson.hidden is not None
    assert scores.hidden is not None
    log_p, log_q = ((of.logits.double() / temperature).log_softmax(-1) for of in (lesson.mlm, scores.mlm))
    pairs = zip(scores.projections, lesson.projections, strict=True)
    relations = [relation_loss(ours, theirs.double(), 8, batch.lengths) for ours, theirs in pairs]
    return {
        "relation_loss": torch.stack(relations).sum(),
        "soft_loss": temperature**2 * (log_p.exp() * (log_p - log_q)).sum(),
        "hidden_loss": sum(
            (F.mse_loss(a, b) for a, b in zip(scores.hidden, lesson.hidden.double(), strict=True)), torch.zeros(())
        ),
    }


def test_a_student_made_of_its_teacher_begins_with_no_loss(store: TokenStore, teacher: Path) -> None:
    asked = options(teacher, model=str(teacher), dropout=0.0, teacher_losses=("relation", "soft", "hidden"))
    objective = objective_of(store, asked)
    model = load_checkpoint(teacher, objective.head).model
    batch = make_plan(store, asked).batch(0)
    with torch.no_grad():
        sums, counts = objective.sums(model(batch), batch.targets), objective.counts(batch.targets)
    for name in ("relation_loss", "soft_loss", "hidden_loss"):
        assert float(sums[name]) / counts[name] == pytest.approx(0, abs=1e-6)


def test_a_stopped_run_resumed_equals_the_uninterrupted_one(store: TokenStore, teacher: Path, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "whole", options(teacher), progress=StopAfter(-1))
    pretrain(store.directory, tmp_path / "run", options(teacher), progress=StopAfter(4))
    pretrain(store.directory, tmp_path / "run", options(teacher), progress=StopAfter(-1))
    assert state_of(tmp_path / "run") == state_of(tmp_path / "whole")
    for change, message in (
        ({"teacher": None, "relation_heads": 16}, "teacher was .*, not given now"),
        ({"teacher_temperature": 1.0}, r"teacher_temperature was 2\.0, now 1\.0"),
        ({"teacher_losses": ("relation",)}, "teacher_losses was not given, now relation"),
        ({"teacher_layer": 2}, "teacher_layer was not given, now 2"),
    ):
        with pytest.raises(UserError, match=message):
            pretrain(store.directory, tmp_path / "run", replace(options(teacher), **change))


def test_cutting_a_step_changes_only_the_rounding(store: TokenStore, teacher: Path, tmp_path: Path) -> None:
    for name, budget in (("whole", 16384), ("cut", 64)):
        asked = options(teacher, dropout=0.0, evaluate_every=0, log_every=1, micro_batch_tokens=budget)
        pretrain(store.directory, tmp_path / name, asked, quiet=True)
    whole, cut = (RunDirectory(tmp_path / name).metrics() for name in ("whole", "cut"))
    for a, b in zip(whole, cut, strict=True):
        for name in ("mlm_loss", "relation_loss", "soft_loss", "grad_norm"):
            if name in a:
                assert a[name] == pytest.approx(b[name], rel=2e-4)


def test_the_command_line_trains_a_student_and_its_model_is_a_plain_one(
    store: TokenStore, teacher: Path, tmp_path: Path, bothways: Run
) -> None:
    out = tmp_path / "run"
    code, _, said = bothways(
        "pretrain", store.directory, "--size", "tiny", "--steps", 12, "--tokens-per-step", 300, "--sequence-length", 32,
        "--teacher", teacher, "--teacher-losses", "relation=2", "soft", "--relation-heads", 8, "--out", out,
        "--max-position-embeddings", 32, "--log-every", 1,
    )  # fmt: skip
    assert code == 0, said
    assert "3 layers of 48, of which layer 3 is shown; losses: relation (weight 2), soft (weight 1)" in said
    lines = [line for line in RunDirectory(out).metrics() if "loss" in line]
    first, last = lines[0], lines[-1]
    parts = ("mlm_loss", "nsp_loss", "relation_loss", "soft_loss")
    assert first["loss"] == pytest.approx(sum(first[name] for name in parts))
    assert last["relation_loss"] < first["relation_loss"]
    assert last["soft_loss"] < first["soft_loss"]
    theirs, report = BertForPreTraining.from_pretrained(out / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert theirs.config.hidden_size == 128
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "attention-relation loss" in page
    assert "soft-target loss" in page
    code, told, said = bothways("evaluate", out, store.directory, "--json")
    assert (code, set(json.loads(told)) >= {"mlm_loss", "nsp_loss"}) == (0, True), said
    assert bothways("info", out, "--batch", 2)[0] == 0


Change = Callable[[Path], dict[str, Any]]  # of the options, by a scratch folder


def by(head: str, **config: Any) -> Change:
    """Another teacher."""
    return lambda folder: {"teacher": str(saved(folder / "other", head, tiny_config(**config)))}


def losses(*names: str) -> Change:
    return lambda folder: {"teacher_losses": names}


REFUSED: dict[str, tuple[Change, str]] = {
    "width": (lambda _: {"relation_heads": 10}, r"relation_heads=10: the teacher has 48 .* accepted: 1, 2, 4, 8, 16$"),
    "hidden": (losses("hidden"), "hidden'?: compares hidden states of one width"),
    "name": (losses("softs"), "softs'?, did you mean .*: expected NAME or NAME=WEIGHT"),
    "weight": (losses("soft=0"), "expected NAME or NAME=WEIGHT"),
    "twice": (losses("soft", "soft=2"), "each name once"),
    "layer": (lambda _: {"teacher_layer": 4}, "teacher_layer=4: .* has the layers 1 to 3"),
    "causal": (lambda _: {"objective": "causal"}, "teaches masked LM, not objective=.*accepted: bert, order, mlm"),
    "electra": (lambda _: {"objective": "electra"}, "teaches masked LM, not objective="),
    "length": (by("masked-LM", max_position_embeddings=16), "sequence_length=32 is above what the teacher reads, 16"),
    "direction": (by("causal-LM", is_decoder=True), "reads from left to right"),
    "segments": (by("masked-LM", type_vocab_size=1), "one segment type only"),
    "headless": (
        lambda folder: {**by("encoder")(folder), "teacher_losses": ("soft",)},
        "has no head of masked LM",
    ),
    "lonely": (lambda _: {"teacher": None}, "relation_heads=8: of a teacher, and there is none"),
    "temperature": (lambda _: {"teacher_temperature": 0.0}, r"teacher_temperature=0\.0: expected a number above 0"),
    "heads": (lambda _: {"relation_heads": 0}, "relation_heads=0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taught_is_refused_in_a_line(
    case: str, store: TokenStore, teacher: Path, tmp_path: Path
) -> None:
    change, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        pretrain(store.directory, tmp_path / "run", replace(options(teacher), **change(tmp_path)), quiet=True)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("checkpoints/*"))


def test_a_teacher_of_another_vocabulary_is_refused(minilm: Path, store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has the vocabulary .* prepare the text with tokenizer="):
        pretrain(store.directory, tmp_path / "run", options(minilm), quiet=True)


def test_a_teacher_without_a_head_shows_relations_alone(minilm: Path, tmp_path: Path, teacher: Path) -> None:
    """MiniLM, of 384 units, teaches a model of 128."""
    write_corpus(tmp_path / "c.jsonl", documents=20)
    tokenizer = load_checkpoint(minilm).tokenizer
    own = prepare([str(tmp_path / "c.jsonl")], tokenizer, tmp_path / "store")
    objective = objective_of(own, options(minilm, relation_heads=16))
    assert objective.losses == ("mlm_loss", "nsp_loss", "relation_loss")


def test_a_student_of_some_of_its_teachers_layers(store: TokenStore, teacher: Path, tmp_path: Path) -> None:
    """It is the teacher with a layer taken out, as transformers runs it."""
    asked = options(teacher, model=str(teacher), keep_layers="1,3", steps=1, lr=1e-30, weight_decay=0.0)
    run = StopAfter(-1)
    pretrain(store.directory, tmp_path / "run", asked, progress=run)
    assert any(line.endswith("Kept of its layers, counted from 1: 1,3.") for line in run.said)
    theirs = BertForPreTraining.from_pretrained(teacher).eval()
    del theirs.bert.encoder.layer[1]
    batch = make_plan(store, asked).batch(0)
    with torch.no_grad():
        expected = theirs(**padded(batch)).prediction_logits
        found = load_checkpoint(tmp_path / "run").model(batch).mlm.logits
    torch.testing.assert_close(found, unpadded(expected, batch)[batch.targets["mlm_index"]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", ["0,1", "2,1", "1,4", "a"])
def test_layers_that_are_not_there_are_refused(layers: str, store: TokenStore, teacher: Path, tmp_path: Path) -> None:
    asked = options(teacher, model=str(teacher), keep_layers=layers)
    with pytest.raises(UserError, match="expected numbers out of 1 to 3 with commas"):
        pretrain(store.directory, tmp_path / "run", asked, quiet=True)
    with pytest.raises(UserError, match="are of model, and none is given"):
        pretrain(store.directory, tmp_path / "run", replace(asked, model=None, keep_layers="1"), quiet=True)


def test_layers_that_are_not_alike_are_not_exchanged() -> None:
    """ModernBERT's first layer has no norm in front, ALBERT's are one; the kinds of attention go with the layers."""
    head = head_builder("masked-LM")
    sizes = {"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    modern = new_model(find_family("modernbert").config(num_hidden_layers=5, **sizes), head, seed=1)
    checkpoint = Checkpoint(modern, tiny_tokenizer(), source="modern")
    with pytest.raises(UserError, match="the layers of modern are not alike"):
        keep_layers(checkpoint, [2, 3], head)
    kept = keep_layers(checkpoint, [1, 2, 4], head).model.encoder
    for ours, number in zip(kept.layers, (0, 1, 3), strict=True):
        theirs = modern.encoder.layers[number]
        assert ours.attention.mask == theirs.attention.mask
        assert ours.attention.rotary.base == theirs.attention.rotary.base
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    albert = new_model(find_family("albert").config(num_hidden_layers=3, embedding_size=16, **sizes), head, seed=1)
    with pytest.raises(UserError, match="share their weights"):
        keep_layers(Checkpoint(albert, tiny_tokenizer(), source="albert"), [1], head)
