"""Entities: how labels of words mark them, and how they are put together from the labels.

Schemes are BIO, BIOES, BILOU, BMES, BMEWO and IO; or `plain`, where every word has a label of its own. Labels without a
kind, a bare B, I or O, mark entities of a single kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bothways.tasks.results import Result

Scheme = Literal["auto", "BIO", "BIOES", "BILOU", "BMES", "BMEWO", "IO", "plain"]
OUTSIDE = "O"  # the label of a word outside of every entity
PREFIXES = {
    "BIO": "B-, I-",
    "BIOES": "B-, I-, E-, S-",
    "BILOU": "B-, I-, L-, U-",
    "BMES": "B-, M-, E-, S-",
    "BMEWO": "B-, M-, E-, W-",
}
# The inside, end and single tags of the other schemes by BIOES' names. No scheme uses one letter for two of them.
BIOES_PREFIX = {"L": "E", "U": "S", "M": "I", "W": "S"}
BARE_KIND = "entity"  # the kind of entities whose labels name none; `seqeval` calls it _
# Labels that models from elsewhere have for tokens which are no word's first: continuations and special tokens.
NO_WORD_LABELS = frozenset({"X", "[CLS]", "[SEP]", "[PAD]", "PAD", "<PAD>"})
_LIKE_OUTSIDE = frozenset("0o\u039f\u041e")  # the digit, the small letter, the Greek and the Cyrillic capital


@dataclass(frozen=True, repr=False)
class Entity(Result):
    """A part of a text with a label. text: the characters `start` to `end` of the text. probability: of its least
    certain word, 0 to 1."""

    label: str
    text: str
    start: int
    end: int
    probability: float


def scheme_of(labels: Sequence[str]) -> str:
    """BIO, BIOES, BILOU, BMES or BMEWO where every label is O or has such a prefix, or nearly every one; IO where
    others stand beside O, else plain. `NO_WORD_LABELS` beside prefixes do not count."""
    of_words = [label for label in labels if label not in NO_WORD_LABELS]
    kindless = "B" in of_words or set(of_words) == {"I", OUTSIDE}
    for scheme in PREFIXES:
        if all(label_in_scheme(label, scheme) for label in of_words) or (kindless and follows(of_words, scheme)):
            return scheme
    return _nearest_scheme(of_words) or ("IO" if OUTSIDE in labels else "plain")


def follows(labels: Sequence[str], scheme: str) -> bool:
    """Whether all labels are of the scheme, which is one of `PREFIXES`: O, or a prefix with a kind; or, in none of
    them, a prefix alone."""
    return all(label_in_scheme(label, scheme) for label in labels) or all(
        label == OUTSIDE or f"{label}-" in PREFIXES[scheme].split(", ") for label in labels
    )


def _nearest_scheme(labels: Sequence[str]) -> str | None:
    """The scheme that more than half of the labels other than O follow, though not all; or, where something that looks
    like an O stands beside O, any of them. None where there is no such scheme."""
    marked = [label for label in labels if label != OUTSIDE]
    counts = {scheme: sum(label_in_scheme(label, scheme) for label in marked) for scheme in PREFIXES}
    best = max(PREFIXES, key=lambda scheme: counts[scheme])
    others = [label for label in marked if not label_in_scheme(label, best)]
    mistyped = OUTSIDE in labels and all(label in _LIKE_OUTSIDE for label in others)
    return best if counts[best] > len(marked) / 2 or (mistyped and counts[best]) else None


def label_in_scheme(label: str, scheme: str) -> bool:
    """Whether a label is O or has a prefix of the scheme, which is one of `PREFIXES`, and a kind: B-x, or B_x."""
    return label == OUTSIDE or (label[1:2] in ("-", "_") and f"{label[0]}-" in PREFIXES[scheme] and len(label) > 2)


def tags_of(labels: Sequence[str], scheme: str) -> list[str]:
    """Labels of a scheme that marks entities, as B- I- E- S- O tags. A label that is none of the scheme is a kind."""
    return [_tag(label, scheme) for label in labels]


def _tag(label: str, scheme: str) -> str:
    if label == OUTSIDE:
        return label
    if scheme in PREFIXES and f"{label}-" in PREFIXES[scheme].split(", "):
        return f"{BIOES_PREFIX.get(label, label)}-{BARE_KIND}"
    if scheme not in PREFIXES or not label_in_scheme(label, scheme):
        return f"I-{label}"
    return f"{BIOES_PREFIX.get(label[0], label[0])}-{label[2:]}"


def prefixed_label(label: str, first: bool, last: bool, scheme: str) -> str:
    """An entity's label as the scheme writes it for a word. first, last: whether the word is the entity's first, its
    last."""
    if scheme in ("IO", "plain"):
        return label
    if scheme != "BIO" and last:
        alone, end = {"BILOU": ("U", "L"), "BMEWO": ("W", "E")}.get(scheme, ("S", "E"))
        return f"{alone}-{label}" if first else f"{end}-{label}"
    inside = "M" if scheme.startswith("BM") else "I"
    return f"B-{label}" if first else f"{inside}-{label}"


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
