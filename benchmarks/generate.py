"""Generation against `transformers` `generate`, the same causal model and prompts: tokens/s of one prompt, and of 16 of
different lengths (the peer's padded on the left), greedy and sampled; both with a cache of keys and values.

    python benchmarks/generate.py [--sizes mini base] [--vocabularies 4096] [--tokens 64] [--rounds 5]

Weights are random and no text may end early, so that every text has as many tokens; greedy texts are compared. The two
take turns, and the medians are shown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import show
from transformers import BertLMHeadModel

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.inference.generation import generate
from bothways.inference.generation_options import GenerationOptions
from bothways.inference.prepared import prepare_for_generation
from bothways.model.config import EncoderConfig
from bothways.model.families import head_builder
from bothways.model.heads import Model
from bothways.text.tokenizer import Tokenizer
from bothways.text.tokenizer_backend import SPECIAL_TOKENS


def ours(model: Model, prompts: list[np.ndarray], tokens: int, greedy: bool) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in prompts]
    options = GenerationOptions(max_tokens=tokens, greedy=greedy)
    for step in generate(model, prompts, options, end_id=-1, never=range(len(SPECIAL_TOKENS))):
        for (prompt, _), token in zip(step.texts, step.tokens, strict=True):
            texts[prompt].append(token)
    return texts


def theirs(model: BertLMHeadModel, prompts: list[np.ndarray], tokens: int, greedy: bool) -> list[list[int]]:
    longest = max(map(len, prompts))
    ids, mask = (torch.zeros((len(prompts), longest), dtype=torch.long) for _ in range(2))
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :], mask[row, longest - len(prompt) :] = torch.from_numpy(prompt), 1
    made = model.generate(
        input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0), max_new_tokens=tokens,
        do_sample=not greedy, top_k=0, suppress_tokens=list(range(len(SPECIAL_TOKENS))), use_cache=True,
    )  # fmt: skip
    return made[:, longest:].tolist()


def compared(size: str, vocabulary: int, tokens: int, rounds: int) -> list[list[object]]:
    config = EncoderConfig.from_size(size, vocab_size=vocabulary, is_decoder=True, initializer_range=0.1)
    model = new_model(config, head_builder("causal-LM"), seed=0).eval()
    words = [*SPECIAL_TOKENS, *(f"w{n}" for n in range(vocabulary - len(SPECIAL_TOKENS)))]
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Checkpoint(model, Tokenizer.from_pieces(words)), Path(folder) / "m")
        model = prepare_for_generation(model)
        peer = BertLMHeadModel.from_pretrained(Path(folder) / "m").eval()
    rng, table = np.random.default_rng(0), []
    for batch in (1, 16):
        lengths = [24] if batch == 1 else rng.integers(8, 64, batch).tolist()
        prompts = [np.append(2, rng.integers(len(SPECIAL_TOKENS), vocabulary, length - 1)) for length in lengths]
        for greedy in (True, False):
            seconds: list[list[float]] = [[], []]
            for number in range(rounds + 1):  # the first one warms up
                for taken, made, used in zip(seconds, (theirs, ours), (peer, model), strict=True):
                    began = time.perf_counter()
                    made(used, prompts, tokens, greedy)
                    if number:
                        taken.append(time.perf_counter() - began)
            same = ""
            if greedy:
                pairs = zip(ours(model, prompts, tokens, True), theirs(peer, prompts, tokens, True), strict=True)
                same = f"{sum(a == b for a, b in pairs)} of {batch}"
            speeds = [batch * tokens / statistics.median(taken) for taken in seconds]
            table.append(
                [
                    f"{size}, {vocabulary:,}",
                    batch,
                    "greedy" if greedy else "sampled",
                    *speeds,
                    speeds[1] / speeds[0],
                    same,
                ]
            )
            print(table[-1], flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["mini", "base"])
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[4096, 30522])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    table: list[list[object]] = []
    for size in arguments.sizes:
        for vocabulary in arguments.vocabularies:
            table += compared(size, vocabulary, arguments.tokens, arguments.rounds)
    header = ["size, vocabulary", "prompts", "", "transformers, tokens/s", "Bothways, tokens/s", "ratio", "same texts"]
    show("generate", header, table, tokens=arguments.tokens, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
