"""Entities: how labels of words mark them, and how they are put together from the labels.

Schemes are BIO, BIOES, BILOU and IO; or `plain`, where every word has a label of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Scheme = Literal["auto", "BIO", "BIOES", "BILOU", "IO", "plain"]
OUTSIDE = "O"  # the label of a word outside of every entity
PREFIXES = {"BIO": "B-, I-", "BIOES": "B-, I-, E-, S-", "BILOU": "B-, I-, L-, U-"}
BIOES_PREFIX = {"L": "E", "U": "S"}  # BILOU's last and unit by BIOES' names


@dataclass(frozen=True)
class Entity:
    """A part of a text with a label. text: the characters `start` to `end` of the text. probability: of its least
    certain word, 0 to 1."""

    label: str
    text: str
    start: int
    end: int
    probability: float


def scheme_of(labels: Sequence[str]) -> str:
    """BIO, BIOES or BILOU where every label is O or has such a prefix, IO where others stand beside O, else plain."""
    for scheme in PREFIXES:
        if all(label_in_scheme(label, scheme) for label in labels):
            return scheme
    return "IO" if OUTSIDE in labels else "plain"


def label_in_scheme(label: str, scheme: str) -> bool:
    """Whether a label is O or has a prefix of the scheme, which is one of `PREFIXES`."""
    return label == OUTSIDE or (label[1:2] == "-" and f"{label[0]}-" in PREFIXES[scheme] and len(label) > 2)


def tags_of(labels: Sequence[str], scheme: str) -> Sequence[str]:
    """Labels of a scheme that marks entities, as B- I- E- S- O tags."""
    if scheme == "IO":
        return [label if label == OUTSIDE else f"I-{label}" for label in labels]
    return [BIOES_PREFIX.get(label[0], label[0]) + label[1:] for label in labels] if scheme == "BILOU" else labels


def prefixed_label(label: str, first: bool, last: bool, scheme: str) -> str:
    """An entity's label as the scheme writes it for a word. first, last: whether the word is the entity's first, its
    last."""
    if scheme in ("IO", "plain"):
        return label
    if scheme in ("BIOES", "BILOU") and last:
        alone, end = ("S", "E") if scheme == "BIOES" else ("U", "L")
        return f"{alone}-{label}" if first else f"{end}-{label}"
    return f"B-{label}" if first else f"I-{label}"


def entity_words(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities in a sequence of B- I- E- S- O tags: kind, number of the first word, of the last word.

    Lenient, as conlleval and `seqeval` in its default mode: a tag continues the entity before it when it is an inside
    or end tag of the same kind after a begin or inside tag, and begins a new one otherwise.
    """
    found: list[tuple[str, int, int]] = []
    before, kind_before = "O", ""
    for word, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix in ("I", "E") and before in ("B", "I") and kind == kind_before:
            found[-1] = (kind, found[-1][1], word)
        elif prefix != "O":
            found.append((kind, word, word))
        before, kind_before = prefix, kind
    return found


def entities_of(
    text: str,
    characters: Sequence[tuple[int, int]],
    labels: Sequence[str],
    probabilities: Sequence[float],
    scheme: str,
) -> list[Entity]:
    """The entities that the labels of a text's words mark; in the plain scheme every word with its label.

    characters: where each word stands, `(start, end)`. probabilities: of each word's label; an entity has that of its
    least certain word.
    """
    words = [(label, number, number) for number, label in enumerate(labels)]
    entities = []
    for kind, first, last in words if scheme == "plain" else entity_words(tags_of(labels, scheme)):
        start, end = characters[first][0], characters[last][1]
        entities.append(Entity(kind, text[start:end], start, end, min(probabilities[first : last + 1])))
    return entities
