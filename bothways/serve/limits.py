"""What a server takes and what it refuses; limits that contradict each other are refused at the start."""

from __future__ import annotations

from dataclasses import dataclass

from bothways.errors import UserError, option
from bothways.option_checks import require_at_least


@dataclass(frozen=True)
class Limits:
    """How much a server takes.

    max_requests: requests that are answered or wait at the same time; beyond it a request is refused with 429.
    max_body: bytes of a request. max_texts: texts, pairs or prompts of a request. max_characters: of a text.
    timeout: seconds in which a request is answered; x-request-timeout asks for fewer. drain: seconds that what was
    accepted has to end after SIGTERM.
    """

    max_requests: int = 256
    max_body: int = 2_000_000
    max_texts: int = 512
    max_characters: int = 200_000
    timeout: float = 60.0
    drain: float = 30.0

    def __post_init__(self) -> None:
        require_at_least(1, max_requests=self.max_requests, max_body=self.max_body)
        require_at_least(1, max_texts=self.max_texts, max_characters=self.max_characters)
        for name in ("timeout", "drain"):
            if not 0 < getattr(self, name) <= 86_400:
                raise UserError(f"{option(name, getattr(self, name))}: expected seconds, above 0 to 86400")
        if self.max_characters >= self.max_body:
            raise UserError(
                f"{option('max_characters', self.max_characters)}: a text of so many characters does not fit into a "
                f"request of {option('max_body', self.max_body)} bytes; give fewer characters or more bytes"
            )
