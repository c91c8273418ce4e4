"""Sampling: `transformers`' own logits processors are the reference, and drawn frequencies match the softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bothways.counter_random import uniforms
from bothways.errors import UserError
from bothways.inference.generation_options import GenerationOptions, generation_options
from bothways.inference.sampling import draw_tokens, filtered_logits

OPTIONS = {
    "temperature": GenerationOptions(temperature=0.7),
    "top_k": GenerationOptions(top_k=5),
    "top_p": GenerationOptions(top_p=0.8),
    "min_p": GenerationOptions(min_p=0.1),
    "all": GenerationOptions(temperature=1.4, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_distribution_is_that_of_transformers(name: str) -> None:
    options = OPTIONS[name]
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 3
    past = torch.randint(50, (6, 9), generator=torch.Generator().manual_seed(1))
    expected = logits.clone()
    steps = [
        (RepetitionPenaltyLogitsProcessor(options.repetition_penalty), options.repetition_penalty != 1),
        (TemperatureLogitsWarper(options.temperature), options.temperature != 1),
        (TopKLogitsWarper(options.top_k or 50), options.top_k > 0),
        (TopPLogitsWarper(options.top_p), options.top_p < 1),
        (MinPLogitsWarper(options.min_p), options.min_p > 0),
    ]
    for step, wanted in steps:
        expected = step(past, expected) if wanted else expected
    found = filtered_logits(logits, options, list(past)).softmax(-1)
    torch.testing.assert_close(found, expected.softmax(-1))
    assert torch.equal(found > 0, expected > -torch.inf)


@pytest.mark.parametrize("name", OPTIONS)
def test_frequencies_of_20_000_draws_match_the_softmax(name: str) -> None:
    number = 20_000
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    chances = filtered_logits(logits, OPTIONS[name], [torch.arange(5)])
    draws = uniforms(np.arange(number, dtype=np.uint64), np.zeros(number, dtype=np.int64), 0)
    chosen = draw_tokens(chances.expand(number, -1), torch.from_numpy(draws))
    counts = np.bincount(chosen.numpy(), minlength=50)
    expected = chances.double().softmax(-1)[0].numpy() * number
    assert not counts[expected == 0].any()
    often = expected >= 5  # what is rarer is one cell, as the test wants it
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    keep = wanted > 0
    assert chisquare(observed[keep], wanted[keep] * observed.sum() / wanted.sum()).pvalue > 0.001


def test_draws_at_the_ends_of_the_interval_are_tokens_that_can_be_drawn() -> None:
    logits = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).log()
    ends = torch.tensor([0.0, 0.2499999, 0.25, 1 - 2.0**-53], dtype=torch.float64)
    assert draw_tokens(logits.expand(4, -1), ends).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0.0: expected a number above 0 .*greedy"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_k": -1}, "top_k=-1: expected at least 0"),
        ({"min_p": 1.0}, "min_p=1.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"max_tokens": 0}, "max_tokens=0: expected at least 1"),
        ({"temprature": 1.0}, "no option 'temprature'.*temperature"),
        ({"top_k": "5"}, "top_k is '5'"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generation_options(values)
