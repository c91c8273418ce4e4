"""What stands before texts that become vectors, "query: " say, and which tokens of a sequence are its own.

Shapes: N sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bothways.batch import PROMPT_TARGET
from bothways.data.encoded import Encoded, join_segments
from bothways.errors import UserError
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """What stands before every text, of a pair before the first. pooled: whether its tokens count in the vector.

    Raises UserError for a text that is no Unicode."""

    text: str = ""
    pooled: bool = True

    def __post_init__(self) -> None:
        if not is_unicode(self.text):
            raise UserError(f"the prompt {self.text[:40]!a} is no Unicode text: it has half of a character")

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Prompt:
        """The one that a model has for texts for which no other is asked, by its `bothways.json`."""
        return cls(state.get("prompt", ""), state.get("include_prompt", True))

    def encode(self, tokenizer: Tokenizer, texts: Sequence[Any], max_length: int) -> list[Encoded]:
        """Texts and pairs behind the prompt, as `join_segments`; where the prompt is not pooled, with the target
        `prompt_tokens`."""
        whole = [self.text + text if isinstance(text, str) else (self.text + text[0], *text[1:]) for text in texts]
        encoded = join_segments(tokenizer, whole, max_length)
        if self.pooled or not self.text:
            return encoded
        target = {PROMPT_TARGET: np.array(self._tokens(tokenizer, max_length))}
        return [replace(sequence, targets=target) for sequence in encoded]

    def _tokens(self, tokenizer: Tokenizer, max_length: int) -> int:
        """As sentence-transformers counts them: those of the prompt by itself, but for a special token at its end."""
        (alone,) = join_segments(tokenizer, [self.text], max_length)
        return len(alone.input_ids) - (int(alone.input_ids[-1]) in tokenizer.special_ids)


def prompt_targets(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    """How many tokens of each sequence are a prompt that is not pooled: int64 `[N]`; nothing where there is none."""
    if PROMPT_TARGET not in encoded[0].targets:
        return {}
    return {PROMPT_TARGET: np.array([sequence.targets[PROMPT_TARGET] for sequence in encoded])}
