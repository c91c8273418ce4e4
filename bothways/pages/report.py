"""A run's report as a self-contained HTML page: figures, curves, tables. No network, no scripts; opens from `file://`.

What is in the reports of pretraining and of fine-tuning is in `pages/pretraining.py` and `pages/finetuning.py`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.files import write_text
from bothways.pages.curves import can_draw_curves, curve_svg
from bothways.pages.display_names import DISPLAY_NAMES, display_name
from bothways.pages.explanation import read_styles
from bothways.pages.marked_text import LabelledSpan, marked_html

DARKEST_SHADE = 0.7  # of a confusion matrix, so that numbers stay readable
LONG_TEXT = 24  # characters of a cell, from which a table is stacked on a telephone rather than scrolled


class HtmlReport:
    """A page that callers put together section by section and write at the end.

    A section ends where the next one of its level, or of one above, begins.
    """

    def __init__(self, title: str, note: str = "") -> None:
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", _note(note)]
        self._open: list[tuple[int, str]] = []  # sections that have not ended: their levels and end tags

    def heading(self, text: str, note: str = "", level: int = 2, folded: bool = False) -> None:
        """Begin a section, with a line below its heading that explains it. level: 2, or 3 for a section within one.
        folded: only heading and line are seen until they are pressed."""
        self._end_sections(level)
        title = f"<h{level}>{html.escape(text)}</h{level}>"
        if folded:
            self._parts.append(f"<details><summary>{title}{_note(note)}</summary>")
        else:
            self._parts.append(f"<section>{title}{_note(note)}")
        self._open.append((level, "</details>" if folded else "</section>"))

    def _end_sections(self, level: int) -> None:
        while self._open and self._open[-1][0] >= level:
            self._parts.append(self._open.pop()[1])

    def note(self, text: str) -> None:
        """A line of explanation."""
        self._parts.append(_note(text))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; columns of numbers are right-aligned, floats shown with three decimals."""
        numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
        classes = [' class="number"' if rows and is_number else "" for is_number in numeric]
        head = "".join(f"<th{kind}>{html.escape(name)}</th>" for name, kind in zip(header, classes, strict=True))
        body = "".join(
            "<tr>" + "".join(_cell(value, name) for value, name in zip(row, header, strict=True)) + "</tr>"
            for row in rows
        )
        has_text = any(isinstance(value, str) and len(value) > LONG_TEXT for row in rows for value in row)
        first_row = f"<tr>{head}</tr>" if any(header) else ""
        kind = "scroll stack" if has_text and any(header) else "scroll"
        self._parts.append(f'<div class="{kind}"><table>{first_row}{body}</table></div>')

    def facts(self, values: Mapping[str, Any]) -> None:
        """A table of names and values, names as people call them."""
        self.table(["", ""], [[display_name(name), _fact(value)] for name, value in values.items()])

    def bars(self, text: str, alternatives: Sequence[tuple[str, float]]) -> None:
        """A text with [MASK] marked and, below it, alternatives (text, probability) with a bar each."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td class=number>{probability:.1%}</td>"
            f'<td><span class="bar" style="width:{probability:.1%}"></span></td></tr>'
            for name, probability in alternatives
        )
        marked = html.escape(text).replace("[MASK]", "<mark>[MASK]</mark>")
        self._parts.append(f'<p>{marked}</p><table class="bars">{rows}</table>')

    def example(
        self, text: str, found: Sequence[LabelledSpan], true: Sequence[LabelledSpan] = (), about: str = ""
    ) -> None:
        """A text with what was found in it marked and what is true underlined. about: what stands above it."""
        above = f"<strong>{html.escape(about)}</strong><br>" if about else ""
        self._parts.append(f'<p class="example">{above}{marked_html(text, found, true)}</p>')

    def confusion(self, labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
        """A confusion matrix: rows are the truth, columns the prediction; shading is the share of the row's total."""
        head = "".join(f"<th class=number>{html.escape(label)}</th>" for label in labels)
        rows = []
        for label, counts in zip(labels, matrix, strict=True):
            total = max(1, sum(counts))
            cells = "".join(
                f'<td class="cell" style="--share:{DARKEST_SHADE * count / total:.3f}">{count:,}</td>'
                for count in counts
            )
            rows.append(f"<tr><td>{html.escape(label)}</td>{cells}</tr>")
        header = f"<tr><th>truth ↓ predicted →</th>{head}</tr>"
        self._parts.append(f'<div class="scroll"><table>{header}{"".join(rows)}</table></div>')

    def curves(
        self, metrics: Sequence[Mapping[str, Any]], names: Sequence[str], epochs_per_step: float | None = None
    ) -> None:
        """A chart for each of the figures `names` that was logged, with its held-out counterpart (`eval_NAME`).

        metrics: lines of metrics.jsonl. epochs_per_step: axes count epochs instead of steps. Nothing without
        matplotlib.
        """
        present = [name for name in names if any({name, f"eval_{name}"} & set(line) for line in metrics)]
        if present and can_draw_curves():
            charts = "".join(f"<div>{curve_svg(metrics, name, epochs_per_step)}</div>" for name in present)
            self._parts.append(f'<div class="curves">{charts}</div>')

    def write(self, path: Path) -> None:
        """Write the page atomically. Raises UserError where it cannot be written."""
        self._end_sections(0)
        style = read_styles("report.css")
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        head += f"<title>{html.escape(self.title)}</title><style>{style}</style>"
        write_text(path, f"<!doctype html><html lang=en><head>{head}</head>\n" + "\n".join(self._parts) + "\n")


def add_provenance(report: HtmlReport, provenance: Mapping[str, Any]) -> None:
    """Where a run comes from: software, machine, date, text or tables, and every option as it was in effect."""
    facts = {name: value for name, value in provenance.items() if name != "options"}
    report.heading("Where it comes from", folded=True)
    report.facts(facts)
    report.heading("Every option", folded=True)
    report.facts(provenance.get("options", {}))


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>' if text else ""


def _fact(value: Any) -> str:
    """A value in words: numbers to four digits, lists with blanks."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return DISPLAY_NAMES.get(value, str(value))


def _cell(value: Any, column: str) -> str:
    name = f' data-column="{html.escape(column, quote=True)}"'
    if isinstance(value, float):
        return f'<td class="number"{name}>{value:.3f}</td>'
    if isinstance(value, int):
        return f'<td class="number"{name}>{value:,}</td>'
    return f"<td{name}>{html.escape(str(value))}</td>"
