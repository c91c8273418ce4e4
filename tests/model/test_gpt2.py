"""GPT-2: nothing sees what comes after it, and generation with the cache is that of `transformers`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import bothways as bw
from bothways.batch import pack_sequences
from bothways.errors import UserError
from bothways.inference.generation import generate
from bothways.inference.generation_options import GenerationOptions
from bothways.text.tokenizer import Tokenizer

GREEDY = GenerationOptions(greedy=True, max_tokens=20)
WORDS = ("the", "old", "dog", "runs", "in", "a", "house", "naïve", "café", "東京", "and", "sleeps")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights of some size, so that what it says is no constant."""
    folder = tmp_path_factory.mktemp("gpt2")
    bpe = Tokenizer.train_byte_bpe(lambda: [" ".join(WORDS)] * 5, 330)
    names = {"<s>": "<|endoftext|>", "<pad>": "0x0", "</s>": "0x1", "<unk>": "0x2", "<mask>": "0x3"}
    vocabulary = {names.get(piece, piece): index for index, piece in enumerate(bpe.pieces())}
    merges = [tuple(pair) for pair in bpe_merges(bpe)]
    transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary), n_layer=3, n_embd=48, n_head=4, n_positions=128, initializer_range=0.4,
        bos_token_id=vocabulary["<|endoftext|>"], eos_token_id=vocabulary["<|endoftext|>"],
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def bpe_merges(tokenizer: Tokenizer) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(json.loads(tokenizer.to_json())["tokenizer"])["model"]["merges"]
    return merges


def test_no_token_sees_what_comes_after_it_to_the_bit(directory: Path) -> None:
    model = bw.load(directory, precision="float32").model
    ids = np.random.default_rng(0).integers(0, 300, 60)
    other = ids.copy()
    other[40:] = (other[40:] + 7) % 300
    with torch.inference_mode():
        whole, changed = (model.encoder(pack_sequences([(x, np.zeros_like(x))])) for x in (ids, other))
    assert torch.equal(whole[:40], changed[:40])
    assert not torch.equal(whole[40:], changed[40:])


def test_generation_with_the_cache_is_that_of_transformers(directory: Path) -> None:
    ours = bw.load(directory, precision="float32")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    rng = np.random.default_rng(1)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(50)]
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    steps = generate(
        ours.for_generation, [np.array(of_prompt) for of_prompt in ids], GREEDY, end_id=ours.tokenizer.sep_id, never=[]
    )
    found: list[list[int]] = [[] for _ in prompts]
    for step in steps:
        for (prompt, _), token in zip(step.texts, step.tokens, strict=True):
            found[prompt].append(token)
    for of_prompt, continuation in zip(ids, found, strict=True):
        made = theirs.generate(torch.tensor([of_prompt]), do_sample=False, max_new_tokens=20, pad_token_id=0)
        assert continuation == made[0, len(of_prompt) :].tolist()
    assert len(set(map(tuple, found))) > 20
    assert ours.generate(prompts[0], greedy=True, max_tokens=8), "in words as well"


def test_scores_are_those_of_transformers(directory: Path) -> None:
    ours = bw.load(directory, precision="float32")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    text = "the old dog runs in 東京"
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
    with torch.inference_mode():
        logs = theirs(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
    assert abs(ours.score(text).log_probability - float(logs)) < 1e-3


def test_what_gpt2_cannot_do_is_refused_by_name(directory: Path) -> None:
    model = bw.load(directory)
    with pytest.raises(UserError, match="fill needs a masked-LM head"):
        model.fill("the [MASK] runs")
    with pytest.raises(UserError, match="next_sentence"):
        model.next_sentence("the dog", "runs")
