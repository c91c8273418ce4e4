"""What reading a corpus has to say: how much there was, and of each file what was left out, folded or guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FILES_NAMED = 3  # of which the same is said are named; of more, the first


@dataclass
class CorpusReport:
    """What was read, and what was left out and why.

    characters: of the documents. bytes_read: on disk. remarks: file → reason → (how often, the first time's line).
    """

    documents: int = 0
    characters: int = 0
    bytes_read: int = 0
    remarks: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)

    def count(self, file: str, line: int, reason: str, count: int = 1) -> None:
        """Add to the count of a file's reason; line 0 where a line means nothing, count 0 of what is only said."""
        reasons = self.remarks.setdefault(file, {})
        before, first = reasons.get(reason, (0, line))
        reasons[reason] = (before + count, first)

    def merge(self, later: CorpusReport) -> None:
        """Add what another report counted."""
        self.documents += later.documents
        self.characters += later.characters
        self.bytes_read += later.bytes_read
        for file, reasons in later.remarks.items():
            for reason, (count, line) in reasons.items():
                self.count(file, line, reason, count)

    def lines(self, limit: int = 20) -> list[str]:
        """The remarks for the terminal, a line a file and reason, or a line for all files of a reason that more than
        `FILES_NAMED` have: the first `limit` lines, and how many more there are."""
        found = [(reason, file, *counts) for file, of in self.remarks.items() for reason, counts in of.items()]
        files = Counter(reason for reason, *_ in found)
        totals: Counter[str] = Counter()
        for reason, _, count, _ in found:
            totals[reason] += count
        remarks, told = [], set[str]()
        for reason, file, count, line in found:
            if files[reason] > FILES_NAMED:
                if reason in told:
                    continue
                told.add(reason)
                file, count = f"{file} and {files[reason] - 1:,} other files", totals[reason]
            first = f" (first at line {line:,})" if line else ""
            remarks.append(f"{file}: {reason}{f': {count:,}' if count else ''}{first}")
        more = [f"… and {len(remarks) - limit:,} more remarks"] if len(remarks) > limit else []
        return remarks[:limit] + more

    def no_text_message(self, sources: Sequence[str]) -> str:
        """The message for a corpus without a single document."""
        reasons = "; ".join(self.lines(3))
        return f"{', '.join(sources[:3])}: no text in {'it' if len(sources) == 1 else 'them'}" + (
            f" ({reasons})" if reasons else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as a store's manifest has it; without `bytes_read`, which is for progress."""
        return {"documents": self.documents, "characters": self.characters, "remarks": self.remarks}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CorpusReport:
        """The report of `to_dict`."""
        remarks = {
            file: {reason: (count, line) for reason, (count, line) in reasons.items()}
            for file, reasons in values["remarks"].items()
        }
        return cls(values["documents"], values["characters"], 0, remarks)
