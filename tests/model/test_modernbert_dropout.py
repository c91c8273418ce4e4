"""ModernBERT's four probabilities of dropout: read, written, and each in effect where `transformers` has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.attention import attend
from bothways.model.attention_mask import AttentionMask
from bothways.model.dropout import Dropout
from bothways.model.families import FAMILIES, build_encoder, read_config
from bothways.model.heads import HeadKind
from tests.helpers import padded, random_batch, unpadded
from tests.model.test_families import CASES, VOCABULARY, ours_of

PROBABILITIES = {"embedding_dropout": 0.1, "attention_dropout": 0.2, "mlp_dropout": 0.3, "classifier_dropout": 0.4}


def their_config(**changed: float) -> Any:
    shape = {**CASES["modernbert"].config, "attn_implementation": "eager"}
    return transformers.AutoConfig.for_model("modernbert", vocab_size=VOCABULARY, num_labels=2, **shape, **changed)


def test_probabilities_are_read_and_written() -> None:
    config = read_config(their_config(**PROBABILITIES).to_dict())
    assert PROBABILITIES.items() <= config.to_dict().items()
    assert read_config(config.to_dict()) == config
    replaced = config.with_dropout(0.25).to_dict()
    assert [replaced[name] for name in PROBABILITIES] == [0.25, 0.25, 0.3, 0.4]


@pytest.mark.parametrize("kind", ["sequence", "token", "span", "choice", "masked-LM"])
def test_each_is_where_transformers_has_it(kind: HeadKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout that multiplies by 1 + p in place of dropping: the same numbers only if every p is at its place."""

    def scaled(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return x * (1 + p) if training else x

    def scaled_attend(
        q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        return attend(q, k, v, batch, mask) * (1 + dropout)

    monkeypatch.setattr(nn.functional, "dropout", scaled)
    monkeypatch.setattr(Dropout, "forward", lambda self, x: scaled(x, self.probability, self.training))
    torch.manual_seed(2)
    architecture = FAMILIES["modernbert"].heads[kind].architecture
    theirs = getattr(transformers, architecture)(their_config(**PROBABILITIES)).train()
    ours = ours_of(theirs, kind).train()
    batch = random_batch((70, 1, 37), VOCABULARY)
    batch.token_type_ids.zero_()
    every = torch.arange(batch.num_tokens)
    batch.targets = {"mlm_index": every, "word_index": every}
    inputs = padded(batch)
    del inputs["token_type_ids"]
    if kind == "choice":
        inputs = {name: tensor[:, None] for name, tensor in inputs.items()}
    output = theirs(**inputs)
    found = ours.head(ours.encoder(batch, ours.head.reads(batch), scaled_attend), batch)
    if kind == "span":
        expected = unpadded(torch.stack([output.start_logits, output.end_logits], -1), batch)
    elif kind in ("sequence", "choice"):
        expected = output.logits.squeeze(-1) if kind == "choice" else output.logits
    else:
        expected = unpadded(output.logits, batch)
    found = found.mlm.logits if kind == "masked-LM" else found
    assert (found - expected).abs().max() < 1e-4
    still = ours.eval().head(ours.encoder(batch, ours.head.reads(batch), scaled_attend), batch)
    still = still.mlm.logits if kind == "masked-LM" else still
    assert (found - still).abs().max() > 1e-3, "without dropout the scores are others, or the test shows nothing"


def test_a_feed_forward_drops_the_share_that_is_asked_for() -> None:
    encoder = build_encoder(read_config(their_config(mlp_dropout=0.3).to_dict())).train()
    dropped: list[float] = []
    for layer in encoder.layers:
        layer.output.register_forward_hook(lambda _, read, out: dropped.append((read[0] == 0).double().mean().item()))
    torch.manual_seed(0)
    batch = random_batch((128, 64, 128), VOCABULARY)
    encoder(batch)
    spread = (0.3 * 0.7 / (batch.num_tokens * encoder.config.intermediate_size)) ** 0.5
    assert dropped == pytest.approx([0.3] * len(encoder.layers), abs=5 * spread)
    dropped.clear()
    encoder.eval()(batch)
    assert dropped == [0.0] * len(encoder.layers)
