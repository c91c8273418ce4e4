"""A text in which parts are marked: what a model found there, and what is true."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence

Span = tuple[int, int, str]  # the first character, the one behind the last, a label; or an empty label

CONTEXT_CHARACTERS = 120  # shown on either side of what is marked: a line or two


def marked_html(text: str, found: Sequence[Span], true: Sequence[Span]) -> str:
    """The text around its spans as HTML: what was found is in `<mark>`, what is true in `<u>`, with their labels; of a
    long text only what is near."""
    begin, end = _shown(text, [*found, *true])
    marks = {edge for start, stop, _ in (*found, *true) for edge in (start, stop)}
    edges = sorted({begin, end, *(edge for edge in marks if begin < edge < end)})
    pieces = [_piece(text, part, found, true) for part in itertools.pairwise(edges)]
    return ("… " if begin else "") + "".join(pieces) + (" …" if end < len(text) else "")


def _shown(text: str, spans: Sequence[Span]) -> tuple[int, int]:
    """The characters that are shown, from a word's beginning to a word's end where there are blanks."""
    first = min((start for start, _, _ in spans), default=0)
    last = max((stop for _, stop, _ in spans), default=0)
    begin, end = max(0, first - CONTEXT_CHARACTERS), min(len(text), last + CONTEXT_CHARACTERS)
    if begin:
        begin = text.find(" ", begin, first) + 1 or begin
    if end < len(text):
        end = max(text.rfind(" ", last, end), last) if " " in text[last:end] else end
    return begin, end


def _piece(text: str, part: tuple[int, int], found: Sequence[Span], true: Sequence[Span]) -> str:
    start, stop = part
    piece = html.escape(text[start:stop])
    for tag, spans in (("mark", found), ("u", true)):
        inside = next((span for span in spans if span[0] <= start and stop <= span[1]), None)
        if inside is not None:
            is_last = stop == inside[1] and inside[2]
            twice = tag == "u" and inside in found
            label = f" <small>{html.escape(inside[2])}</small>" if is_last and not twice else ""
            piece = f"<{tag}>{piece}{label}</{tag}>"
    return piece
