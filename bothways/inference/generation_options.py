"""How a text goes on: the options of generation, which `--help` reads without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from bothways.errors import UserError, option
from bothways.option_checks import require_at_least, require_name, require_seed, require_type


@dataclass(frozen=True)
class GenerationOptions:
    """How a text goes on.

    max_tokens: after so many it ends, if not before at `[EOS]`. greedy: always the likeliest token, instead of one that
    is drawn from what repetition_penalty, temperature, top_k, top_p and min_p, in this order, leave of the softmax.
    repetition_penalty: logits of tokens that the text has already are divided by it,
    negative ones multiplied (Keskar et al. 2019, section 4.1). temperature: logits are divided by it. top_k: the k
    likeliest tokens alone; 0: all. top_p: the fewest tokens that hold this probability (Holtzman et al. 2020).
    min_p: tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024).
    samples: texts for each prompt. seed: what is drawn depends on it, on the sample's number and on the place in the
    text, not on other prompts.
    """

    max_tokens: int = 100
    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1e-4 <= self.temperature <= 1e4:
            raise UserError(
                f"{option('temperature', self.temperature)}: expected a number above 0 (0.0001 to 10000); for the "
                f"likeliest token take {option('greedy', True)}"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"{option('top_p', self.top_p)}: expected a probability, above 0 to 1")
        if not 0 <= self.min_p < 1:
            raise UserError(f"{option('min_p', self.min_p)}: expected a share, 0 to below 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(f"{option('repetition_penalty', self.repetition_penalty)}: expected a number above 0")
        require_seed(self.seed)
        require_at_least(1, max_tokens=self.max_tokens, samples=self.samples)
        require_at_least(0, top_k=self.top_k)

    @property
    def uses_the_past(self) -> bool:
        """Whether what the text has already makes a difference."""
        return self.repetition_penalty != 1


def generation_options(values: Mapping[str, Any]) -> GenerationOptions:
    """Options by name. Raises UserError for names and types that there are not."""
    hints = get_type_hints(GenerationOptions)
    for name, value in values.items():
        require_name("generation", name, hints)
        require_type(name, value, hints[name])
    return GenerationOptions(**values)
