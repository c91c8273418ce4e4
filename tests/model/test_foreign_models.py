"""Models that are not what they are taken for: each is refused by the command line in one line that says what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.model.families import FAMILIES, head_builder
from bothways.text.tokenizer import Tokenizer
from tests.helpers import Run, tiny_tokenizer


def configured(**values: object) -> Callable[[Path], None]:
    """Changes the model's config.json."""

    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def other_names(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    renamed = {name.replace("bert.", "electra."): tensor for name, tensor in weights.items()}
    save_file(renamed, model / "model.safetensors", metadata={"format": "pt"})


def other_tokenizer(model: Path) -> None:
    pieces = tiny_tokenizer().pieces()
    Tokenizer.from_pieces([*pieces, "more", "pieces"]).save(model)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a family that is not here": (configured(model_type="deberta-v2"), r"model_type 'deberta-v2'; accepted: bert, rob"),
    "remote code": (
        configured(auto_map={"AutoModel": "modeling.Own"}),
        r"auto_map .*modeling\.Own.*code of its own, which is never run",
    ),
    "weights of another family": (other_names, "model_type is 'bert', but the weights have the names of ELECTRA's"),
    "a tokenizer of another model": (
        other_tokenizer,
        r"another model's: the tokenizer has \d+ pieces, config.json has",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_read_is_refused_in_a_line(name: str, pretrained: Path, bothways: Run) -> None:
    change, said = REFUSED[name]
    change(pretrained)
    for verb in (["fill", pretrained, "the [MASK]"], ["info", pretrained]):
        code, output, errors = bothways(*verb)
        assert (code, output) == (2, "")
        assert len(errors.splitlines()) == 1
        assert errors.startswith("bothways: ")
        assert re.search(said, errors), errors


@pytest.mark.parametrize("family", ["gpt2", "roberta"])
def test_what_a_family_cannot_do_is_refused_in_a_line(family: str, tmp_path: Path, bothways: Run) -> None:
    """A model of the next token has no masks to fill; one of masks does not go on with a text."""
    tokenizer = Tokenizer.train_byte_bpe(lambda: ["the old dog runs in the house"] * 3, 270)
    config = FAMILIES[family].config(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    kind = "causal-LM" if family == "gpt2" else "masked-LM"
    save_checkpoint(Checkpoint(new_model(config, head_builder(kind), 0), tokenizer), tmp_path / "model")  # type: ignore[arg-type]
    wrong = {"gpt2": ("fill", "the <mask>"), "roberta": ("generate", "the dog")}[family]
    code, output, errors = bothways(wrong[0], tmp_path / "model", wrong[1])
    assert (code, output) == (2, "")
    assert len(errors.splitlines()) == 1
    needed = {"gpt2": "fill needs a masked-LM head", "roberta": "generate needs a model trained from left to right"}
    assert needed[family] in errors
