"""Every family against `transformers`, the oracle: hidden states, every head, gradients, on ragged batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.checkpoint.hugging_face import load_checkpoint, name_table, save_checkpoint
from bothways.errors import UserError
from bothways.inference.compiled import CompiledModel, supports
from bothways.model.families import FAMILIES, build_encoder, build_head, read_config
from bothways.model.heads import HeadKind, Model
from bothways.native.loading import library
from bothways.text.tokenizer import Tokenizer
from tests.helpers import padded, random_batch, unpadded

VOCABULARY = 600
RAGGED = (512, 1, 37, 128, 128, 2, 300, 64)


@dataclass(frozen=True)
class Case:
    """A family's small config: overrides of the defaults that `transformers` has, and sequences to read."""

    config: dict[str, Any]
    lengths: tuple[int, ...] = RAGGED
    token_types: bool = True


SHAPE = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
OFFSET = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
CASES: dict[str, Case] = {
    "bert": Case(SHAPE),
    "roberta": Case({**SHAPE, **OFFSET}, token_types=False),
    "xlm-roberta": Case({**SHAPE, **OFFSET}, token_types=False),
    "camembert": Case({**SHAPE, **OFFSET}, token_types=False),
    "distilbert": Case({"n_layers": 3, "dim": 64, "n_heads": 4, "hidden_dim": 96}, token_types=False),
    "electra": Case({**SHAPE, "embedding_size": 32}),
    "albert": Case({**SHAPE, "num_hidden_layers": 5, "num_hidden_groups": 2, "embedding_size": 32}),
    "mpnet": Case({**SHAPE, "max_position_embeddings": 514}, token_types=False),
    "modernbert": Case(
        {**SHAPE, "num_hidden_layers": 4, "pad_token_id": 0, "max_position_embeddings": 2048},
        (2048, 1, 37, 128, 129, 300, 64, 65),
        token_types=False,
    ),
    "gpt2": Case({"n_layer": 3, "n_embd": 64, "n_head": 4, "n_inner": 96}, token_types=False),
}
KINDS = [(family, kind) for family in FAMILIES for kind in FAMILIES[family].heads]


def transformers_model(family: str, kind: HeadKind) -> nn.Module:
    """A model with random weights; biases and norms are random as well, so that a mix-up of them is seen."""
    torch.manual_seed(2)
    config = transformers.AutoConfig.for_model(family, vocab_size=VOCABULARY, num_labels=2, **CASES[family].config)
    if kind in ("causal-LM",) and family != "gpt2":
        config.is_decoder = True
    model = getattr(transformers, FAMILIES[family].heads[kind].architecture)(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    if family == "mpnet":
        model.get_parameter(next(n for n, _ in model.named_parameters() if "relative" in n)).data.normal_()
    return model.eval()


def ours_of(theirs: Any, kind: HeadKind) -> Model:
    """Our model with the same weights."""
    config = read_config(theirs.config.to_dict())
    encoder = build_encoder(config)
    model = Model(encoder, build_head(encoder, kind, 2)).to(theirs.dtype)
    found, unused = name_table(model).from_hugging_face(theirs.state_dict(), model.state_dict())
    missing = set(model.state_dict()) - set(found)
    assert not missing - {"head.lm.decoder.weight"}, missing
    spare = [name for name in unused if not name.endswith(("position_ids", "token_type_ids"))]
    if kind == "span" and FAMILIES[kind and theirs.config.model_type].name == "mpnet":
        spare = []
    assert not spare, spare
    model.load_state_dict(found, strict=False)
    return model.eval()


def batch_of(family: str) -> PackedBatch:
    case = CASES[family]
    batch = random_batch(case.lengths, VOCABULARY)
    if not case.token_types:
        batch.token_type_ids.zero_()
    every = torch.arange(batch.num_tokens)
    batch.targets = {"mlm_index": every, "word_index": every}
    return batch


def inputs_of(family: str, batch: PackedBatch) -> dict[str, Tensor]:
    inputs = padded(batch)
    if not CASES[family].token_types:
        del inputs["token_type_ids"]
    return inputs


def their_states(theirs: Any, family: str, batch: PackedBatch) -> Tensor:
    inputs = inputs_of(family, batch)
    if family in ("roberta", "xlm-roberta", "camembert", "mpnet"):  # which count positions by the padding id
        inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 1)
    return theirs.base_model(**inputs).last_hidden_state


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states(family: str) -> None:
    theirs = transformers_model(family, "encoder")
    ours, batch = ours_of(theirs, "encoder"), batch_of(family)
    with torch.inference_mode():
        expected = unpadded(their_states(theirs, family, batch), batch)
        assert (ours.encoder(batch) - expected).abs().max() < 2e-5
    with torch.enable_grad():
        recorded = ours.encoder(batch)
    assert (recorded - expected).abs().max() < 2e-5


SCORES: dict[HeadKind, Callable[[Any], Any]] = {
    "pretraining": lambda scores: scores.mlm.logits,
    "masked-LM": lambda scores: scores.mlm.logits,
    "causal-LM": lambda scores: scores.logits,
}


@pytest.mark.parametrize(("family", "kind"), [pair for pair in KINDS if pair[1] != "encoder"])
def test_scores_of_every_head(family: str, kind: HeadKind) -> None:
    theirs = transformers_model(family, kind)
    ours, batch = ours_of(theirs, kind), batch_of(family)
    inputs = inputs_of(family, batch)
    if family in ("roberta", "xlm-roberta", "camembert", "mpnet", "gpt2"):
        inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 1)
        inputs["position_ids"] = torch.arange(batch.max_seqlen).expand(batch.num_sequences, -1) + getattr(
            ours.encoder.embeddings.position, "offset", 0
        )
    if family == "gpt2":
        theirs.config.pad_token_id = 1
        batch.input_ids[batch.input_ids == 1] = 7
    if kind == "choice":
        inputs = {name: tensor[:, None] for name, tensor in inputs.items() if name != "position_ids"}
    with torch.inference_mode():
        found = SCORES.get(kind, lambda scores: scores)(ours(batch))
        output = theirs(**inputs)
        if kind == "pretraining":
            expected, second = unpadded(output.prediction_logits, batch), ours(batch).nsp
            theirs_second = output.seq_relationship_logits if family == "bert" else output.sop_logits
            assert (second - theirs_second).abs().max() < 1e-4
        elif kind == "span":
            expected = unpadded(torch.stack([output.start_logits, output.end_logits], -1), batch)
        elif kind in ("sequence", "choice"):
            expected = output.logits.squeeze(-1) if kind == "choice" else output.logits
        else:
            expected = unpadded(output.logits, batch)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_every_gradient_in_float64(family: str) -> None:
    kind: HeadKind = "causal-LM" if family == "gpt2" else "masked-LM"
    theirs = transformers_model(family, kind).double()
    ours = ours_of(theirs, kind)
    batch = random_batch((90, 1, 37, 150, 37), VOCABULARY)
    if not CASES[family].token_types:
        batch.token_type_ids.zero_()
    labels = torch.randint(0, VOCABULARY, (batch.num_tokens,), generator=torch.Generator().manual_seed(0))
    batch.targets = {"mlm_index": torch.arange(batch.num_tokens)}
    inputs = inputs_of(family, batch)
    inputs["position_ids"] = torch.arange(batch.max_seqlen).expand(batch.num_sequences, -1) + getattr(
        ours.encoder.embeddings.position, "offset", 0
    )
    logits = unpadded(theirs(**inputs).logits, batch)
    expected = nn.functional.cross_entropy(logits, labels)
    expected.backward()
    scores = ours(batch)
    total, _ = (scores if kind == "causal-LM" else scores.mlm).cross_entropy(labels)
    loss = total / len(labels)
    loss.backward()
    assert abs(loss.item() - expected.item()) < 1e-6
    gradients = {name: p.grad for name, p in theirs.named_parameters(remove_duplicate=False) if p.grad is not None}
    found, _ = name_table(ours).from_hugging_face(gradients, dict(ours.named_parameters()))
    for name, parameter in ours.named_parameters():
        if name in found:
            assert (parameter.grad - found[name]).abs().max() < 1e-6, name
    left = {name for name, _ in ours.named_parameters()} - set(found)
    assert not left, left


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_layers_compute_the_same_where_they_can(family: str) -> None:
    theirs = transformers_model(family, "encoder")
    ours, batch = ours_of(theirs, "encoder"), batch_of(family)
    expected_of = {"modernbert": False, "gpt2": False, "albert": False}
    assert supports(ours.encoder) == (library() is not None and expected_of.get(family, True))
    if supports(ours.encoder):
        with torch.inference_mode():
            compiled = CompiledModel(ours.encoder, ours.head).encoder(batch)
            assert (compiled - ours.encoder(batch)).abs().max() < 2e-5


def tokenizer_for(family: str) -> Any:
    """A small vocabulary as the family's models have it, of `VOCABULARY` pieces at most."""
    texts = ["the old dog runs in the house", "a red cat sleeps, and eats on the new house!"] * 9
    if family in ("bert", "distilbert", "electra", "albert", "mpnet"):
        return Tokenizer.train(lambda: texts, 90)
    return Tokenizer.train_byte_bpe(lambda: texts, 300)


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_directories_open_on_both_sides(family: str, kind: HeadKind, tmp_path: Path) -> None:
    theirs = transformers_model(family, kind)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer_for(family).save(tmp_path / "theirs")
    checkpoint = load_checkpoint(tmp_path / "theirs")
    assert checkpoint.report is not None
    assert not checkpoint.report.newly_initialised
    assert checkpoint.model.head.kind == kind
    save_checkpoint(checkpoint, tmp_path / "ours")

    again = getattr(transformers, type(theirs).__name__).from_pretrained(tmp_path / "ours")
    state, expected = again.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    files = [load_file(tmp_path / side / "model.safetensors").keys() for side in ("theirs", "ours")]
    assert {name for name in files[0] if "position_ids" not in name} >= files[1]
    ours_config, their_config = again.config.to_dict(), theirs.config.to_dict()
    differing = {key for key in their_config if ours_config.get(key) != their_config[key]}
    assert differing <= {"_name_or_path", "transformers_version", "dtype", "problem_type"}, differing

    twice = load_checkpoint(tmp_path / "ours")
    mine = twice.model.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in checkpoint.model.state_dict().items())
    assert twice.config == checkpoint.config


@pytest.mark.parametrize(
    ("family", "changed", "said"),
    [
        ("roberta", {"pad_token_id": -3}, "pad_token_id -3"),
        ("roberta", {"max_position_embeddings": 8}, "positions count from behind the padding id"),
        ("mpnet", {"pad_token_id": 0}, "this vocabulary's is 0"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "relative_attention_num_buckets '64'.*accepted: 32"),
        ("albert", {"inner_group_num": 2}, "inner_group_num '2'.*accepted: 1"),
        ("albert", {"num_hidden_groups": 9}, "num_hidden_groups 9: expected at most num_hidden_layers 5"),
        ("electra", {"summary_type": "mean"}, "summary_type 'mean'"),
        ("modernbert", {"mlp_dropout": 1.5}, "mlp_dropout 1.5: expected a probability, 0 to below 1"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types .*expected num_hidden_layers 4 of"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_parameters .*default"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx 'True'"),
        ("distilbert", {"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ("bert", {"model_type": "deberta-v2"}, "model_type 'deberta-v2'; accepted: bert, roberta"),
    ],
)
def test_what_a_family_cannot_honour_is_refused_by_key_and_value(
    family: str, changed: dict[str, Any], said: str
) -> None:
    values = transformers.AutoConfig.for_model(family, vocab_size=VOCABULARY, **CASES[family].config).to_dict()
    with pytest.raises(UserError, match=said):
        read_config({**values, **changed})


def test_weights_of_another_family_are_named(tmp_path: Path) -> None:
    transformers_model("electra", "masked-LM").save_pretrained(tmp_path)
    tokenizer_for("electra").save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mpnet", "pad_token_id": 1}))
    with pytest.raises(UserError, match="model_type is 'mpnet', but the weights have the names of"):
        load_checkpoint(tmp_path)
