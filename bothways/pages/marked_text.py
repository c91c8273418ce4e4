"""A text in which parts are marked: what a model found there, and what is true."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence

LabelledSpan = tuple[int, int, str]  # the first character, the one behind the last, a label; or an empty label

CONTEXT_CHARACTERS = 120  # shown on either side of what is marked: a line or two


def marked_html(text: str, found: Sequence[LabelledSpan], true: Sequence[LabelledSpan]) -> str:
    """The text around its spans as HTML: what was found is in `<mark>`, what is true in `<u>`, with their labels; of a
    long text only what is near a span."""
    edges = {edge for start, end, _ in (*found, *true) for edge in (start, end)}
    windows = _windows(text, [*found, *true])
    parts = []
    for begin, end in windows:
        cuts = sorted({begin, end, *(edge for edge in edges if begin < edge < end)})
        parts.append("".join(_piece(text, piece, found, true) for piece in itertools.pairwise(cuts)))
    before = "… " if windows[0][0] else ""
    after = " …" if windows[-1][1] < len(text) else ""
    return before + " … ".join(parts) + after


def _windows(text: str, spans: Sequence[LabelledSpan]) -> list[tuple[int, int]]:
    """The characters around each span that are shown, those that touch as one; without spans the text's beginning."""
    windows: list[tuple[int, int]] = []
    for start, end, _ in sorted(spans) or [(0, 0, "")]:
        begin, end = _to_words(text, start - CONTEXT_CHARACTERS, start), _to_words(text, end + CONTEXT_CHARACTERS, end)
        if windows and begin <= windows[-1][1]:
            begin, before = windows.pop()
            end = max(end, before)
        windows.append((begin, end))
    return windows


def _to_words(text: str, place: int, span_edge: int) -> int:
    """A place in the text or its end, moved towards the edge of a span to where a word begins or ends."""
    if not 0 < place < len(text):
        return min(max(place, 0), len(text))
    if place < span_edge:
        return text.find(" ", place, span_edge) + 1 or place
    blank = text.rfind(" ", span_edge, place)
    return place if blank < 0 else blank


def _piece(text: str, piece: tuple[int, int], found: Sequence[LabelledSpan], true: Sequence[LabelledSpan]) -> str:
    """Characters between two edges of spans, in the elements of the spans that they are part of."""
    start, end = piece
    shown = html.escape(text[start:end])
    for tag, spans in (("mark", found), ("u", true)):
        span = next((span for span in spans if span[0] <= start and end <= span[1]), None)
        if span is not None:
            said_already = tag == "u" and span in found
            label = html.escape(span[2]) if end == span[1] and not said_already else ""
            shown = f"<{tag}>{shown}{f' <small>{label}</small>' if label else ''}</{tag}>"
    return shown
