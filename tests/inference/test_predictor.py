"""What a loaded model answers, against transformers where it has the same question."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertForPreTraining, BertModel

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.errors import TruncationWarning, UserError
from bothways.model.families import head_builder
from tests.helpers import tiny_config, tiny_tokenizer

TEXTS = ["No light on my router.", ("Is it broken?", "The café is closed — naïve question!"), "a", "long " * 300]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictor") / "model"
    save_checkpoint(Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer()), folder)
    return folder


def test_hidden_states_equal_transformers(minilm: Path) -> None:
    model = bw.load(minilm)
    theirs, tokenizer = BertModel.from_pretrained(minilm).eval(), AutoTokenizer.from_pretrained(minilm)
    tokenizer._tokenizer.no_truncation()
    for states, text in zip(model.hidden_states(TEXTS), TEXTS, strict=True):
        inputs = tokenizer(*((text,) if isinstance(text, str) else text), return_tensors="pt")
        with torch.inference_mode():
            expected = theirs(**inputs).last_hidden_state[0]
        assert states.dtype == torch.float32
        assert (states - expected).abs().max() < 2e-5
    assert model.hidden_states("one text").shape == (4, 384)
    assert model.hidden_states(("a", "pair")).shape == (5, 384)


def test_fill_and_next_sentence_equal_transformers(pretrained: Path) -> None:
    model = bw.load(pretrained)
    theirs, tokenizer = BertForPreTraining.from_pretrained(pretrained).eval(), AutoTokenizer.from_pretrained(pretrained)
    text = "the [MASK] dog runs in the [MASK]."
    inputs = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        probabilities = theirs(**inputs).prediction_logits[0].softmax(-1)
    rows = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    fills = model.fill(text, top_k=4)
    assert len(fills) == 2
    for row, fill in zip(rows, fills, strict=True):
        values, ids = probabilities[row].topk(4)
        assert [one.token for one in fill] == tokenizer.convert_ids_to_tokens(ids.tolist())
        assert [one.probability for one in fill] == pytest.approx(values.tolist(), abs=1e-6)
    with torch.inference_mode():
        logits = theirs(**tokenizer("the dog runs.", "a cat sleeps.", return_tensors="pt")).seq_relationship_logits
    assert model.next_sentence("the dog runs.", "a cat sleeps.") == pytest.approx(
        logits.softmax(-1)[0, 0].item(), abs=1e-6
    )


def test_refusals(pretrained: Path, minilm: Path) -> None:
    model, encoder = bw.load(pretrained), bw.load(minilm)
    with pytest.raises(UserError, match=r"no \[MASK\] in 'the dog'"):
        model.fill("the dog")
    with pytest.raises(UserError, match="tokens long; the position table has 512 rows"):
        model.fill("the [MASK] " * 600)
    with pytest.raises(UserError, match="fill needs a masked-LM head; this model was made for similar"):
        encoder.fill("a [MASK]")
    with pytest.raises(UserError, match=r"classify needs a model fine-tuned for it .*; this one has PretrainingHead"):
        model.classify(["x"])
    for nonsense in (5, [1], ["a", None], ["\ud800"], [("a", "b", "c")]):
        with pytest.raises(UserError, match="expected"):
            encoder.hidden_states(nonsense)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected a model's directory"):
        bw.load(5)  # type: ignore[arg-type]


def test_a_warning_of_cut_texts_names_the_users_line(pretrained: Path) -> None:
    model = bw.load(pretrained, device="cpu")
    for ask in (lambda: model.embed(["dog " * 900]), lambda: model.similar("a cat", ["dog " * 900])):
        with pytest.warns(TruncationWarning, match="1 of 1 texts are longer") as given:
            ask()
        assert [warning.filename for warning in given] == [__file__]
