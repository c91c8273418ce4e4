"""A run's report as a self-contained HTML page: figures, curves, tables. No network, no scripts; opens from `file://`."""

from __future__ import annotations

import html
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.files import write_text
from bothways.tasks.metrics import commonest_labels
from bothways.train.evaluate import Evaluation

STYLE = """
:root { color-scheme: light dark; --fg: #1d2129; --bg: #fff; --faint: #6b7280; --line: #e2e5ea; --accent: 37 99 235; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e5e7eb; --bg: #14171c; --faint: #9aa2ae; --line: #2c323b; --accent: 96 165 250; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem } h2 { font-size: 1.2rem; margin-top: 2.2rem } p.note { color: var(--faint) }
table { border-collapse: collapse; margin: .8rem 0 } th, td { padding: .3rem .8rem; text-align: left;
        border-bottom: 1px solid var(--line); vertical-align: top } td.number { text-align: right;
        font-variant-numeric: tabular-nums } .scroll { overflow-x: auto }
td.cell { text-align: center; min-width: 4rem; background: rgb(var(--accent) / var(--share)) }
.curves svg { max-width: 100%; height: auto; color: var(--fg) }
mark { background: rgb(var(--accent) / .25); color: inherit }
.bar { display: inline-block; height: .7em; background: rgb(var(--accent)); border-radius: 2px }
"""

TEXT_COLOUR = "#010203"  # stands for the page's own text colour in pictures, light or dark
# The titles of figures in metrics.jsonl.
HELD_OUT_TITLES = {
    "eval_lm_loss": "held-out next-token loss (nats)",
    "eval_lm_accuracy": "held-out next-token accuracy",
    "eval_perplexity": "held-out perplexity",
    "eval_mlm_loss": "held-out masked-LM loss (nats)",
    "eval_mlm_accuracy": "held-out masked-LM accuracy",
    "eval_nsp_loss": "held-out next-sentence loss (nats)",
    "eval_nsp_accuracy": "held-out next-sentence accuracy",
    "eval_sop_loss": "held-out sentence-order loss (nats)",
    "eval_sop_accuracy": "held-out sentence-order accuracy",
}
TRAINING_TITLES = {
    "mlm_loss": "masked-LM loss (nats)",
    "mlm_accuracy": "masked-LM accuracy",
    "nsp_accuracy": "next-sentence accuracy",
    "sop_accuracy": "sentence-order accuracy",
    "lm_loss": "next-token loss (nats)",
    "lm_accuracy": "next-token accuracy",
}
SPEED_TITLES = {
    "tokens_per_second": "tokens/s",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
}
MAX_MISTAKES = 20  # rows of the table of mistakes
MAX_CELL_CHARACTERS = 280  # of a text in it
MAX_SNAPSHOTS = 6  # evaluations whose samples are shown: as many columns as fit a screen
BAR_REM = 12  # length of the bar of probability 1, in the page's font size
DARKEST_SHADE = 0.7  # of a confusion matrix, so that numbers stay readable


class HtmlReport:
    """A page that callers put together section by section and write at the end."""

    def __init__(self, title: str, note: str = "") -> None:
        self.title = title
        self._sections = [f"<h1>{html.escape(title)}</h1>", f'<p class="note">{html.escape(note)}</p>' if note else ""]

    def heading(self, text: str, note: str = "") -> None:
        """A heading and, below it, a line that explains what follows."""
        self._sections.append(f"<h2>{html.escape(text)}</h2>")
        if note:
            self._sections.append(f'<p class="note">{html.escape(note)}</p>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers are right-aligned, floats shown with three decimals."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
        body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
        self._sections.append(f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>')

    def bars(self, text: str, alternatives: Sequence[tuple[str, float]]) -> None:
        """A text with [MASK] marked and, below it, alternatives (text, probability) with a bar each."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{probability:.1%}</td>"
            f'<td><span class="bar" style="width:{probability * BAR_REM:.2f}rem"></span></td></tr>'
            for name, probability in alternatives
        )
        marked = html.escape(text).replace("[MASK]", "<mark>[MASK]</mark>")
        self._sections.append(f"<p>{marked}</p><table>{rows}</table>")

    def entities(self, text: str, found: Sequence[tuple[int, int, str]]) -> None:
        """A text with its entities (start, end, label) marked."""
        pieces, at = [], 0
        for start, end, label in found:
            pieces += [
                html.escape(text[at:start]),
                f"<mark>{html.escape(text[start:end])} <small>{html.escape(label)}</small></mark>",
            ]
            at = end
        self._sections.append(f"<p>{''.join(pieces)}{html.escape(text[at:])}</p>")

    def confusion(self, labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
        """A confusion matrix: rows are the truth, columns the prediction; shading is the share of the row's total."""
        head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
        body = ""
        for label, counts in zip(labels, matrix, strict=True):
            of_label = max(1, sum(counts))
            cells = "".join(
                f'<td class="cell" style="--share:{count / of_label * DARKEST_SHADE:.2f}">{count}</td>'
                for count in counts
            )
            body += f"<tr><th>{html.escape(label)}</th>{cells}</tr>"
        corner = "<th>truth ↓ predicted →</th>"
        self._sections.append(f'<div class="scroll"><table><tr>{corner}{head}</tr>{body}</table></div>')

    def curves(self, metrics: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
        """Training values and held-out values (`eval_*`) over tokens, a picture for each name → axis label.

        Names that no line has are left out; without matplotlib all are.
        """
        present = {
            name: label for name, label in names.items() if any({name, f"eval_{name}"} & set(line) for line in metrics)
        }
        if present and can_report():
            self._sections.append(f'<div class="curves">{_curves_svg(metrics, present)}</div>')

    def write(self, path: Path) -> None:
        """Write the page atomically. Raises UserError where it cannot be written."""
        body = "\n".join(self._sections)
        head = (
            f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(self.title)}'
        )
        write_text(path, f"<!doctype html><html lang=en><head>{head}</title><style>{STYLE}</style></head>\n{body}\n")


def can_report() -> bool:
    """Whether matplotlib, the `report` extra, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.3f}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def _curves_svg(metrics: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {"svg.hashsalt": "bothways", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        style[name] = TEXT_COLOUR
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.6 * len(names), 3.0), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for panel, (name, label) in zip(panels, names.items(), strict=True):
            for key, look in ((name, {"alpha": 0.5, "label": "training"}), (f"eval_{name}", {"marker": "o"})):
                points = [(line["tokens"] / 1e6, line[key]) for line in metrics if key in line]
                if points:
                    held_out = {"label": "held-out", "markersize": 3} if key != name else {}
                    panel.plot(*zip(*points, strict=True), **look, **held_out)
            panel.set_xlabel("million tokens")
            panel.set_ylabel(label)
            panel.legend(frameon=False)
        picture = io.StringIO()
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None})
    svg = picture.getvalue().replace(TEXT_COLOUR, "currentColor")
    return svg[svg.index("<svg") :]


def pretraining_report(metrics: Sequence[Mapping[str, Any]], title: str) -> HtmlReport:
    """Curves of a pretraining run and its last held-out figures, to which a caller may add sections."""
    report = HtmlReport(title)
    add_pretraining(report, metrics)
    return report


def add_pretraining(report: HtmlReport, metrics: Sequence[Mapping[str, Any]]) -> None:
    """The run's size and speed, its last held-out figures, curves, and samples over time.

    metrics: the lines of metrics.jsonl, in order.
    """
    held_out_titles = _with_unlisted(HELD_OUT_TITLES, metrics, held_out=True)
    last: Mapping[str, Any] = next((line for line in reversed(metrics) if "loss" in line), {})
    held_out: Mapping[str, Any] = next((line for line in reversed(metrics) if held_out_titles.keys() & line.keys()), {})
    seconds = float(last.get("seconds", 0.0))
    rows: list[list[Any]] = [
        ["steps", last.get("step", 0)],
        ["tokens seen", last.get("tokens", 0)],
        ["seconds", seconds],
        ["tokens/s", round(last.get("tokens", 0) / max(1e-9, seconds))],
    ]
    rows += [[title, held_out[name]] for name, title in held_out_titles.items() if name in held_out]
    report.table(["", ""], rows)
    report.curves(metrics, _with_unlisted(TRAINING_TITLES, metrics, held_out=False))
    report.curves(metrics, SPEED_TITLES)
    _add_fills(report, [line for line in metrics if line.get("eval_fills")])
    _add_continuations(report, [line for line in metrics if line.get("eval_continuations")])


def _with_unlisted(titles: Mapping[str, str], metrics: Sequence[Mapping[str, Any]], held_out: bool) -> dict[str, str]:
    """The titles, with one made of its name for each loss and accuracy of an objective that they do not list."""
    listed = {name.rpartition("_")[0] for name in titles}
    names = dict.fromkeys(name for line in metrics for name in line if name.endswith(("_loss", "_accuracy")))
    unlisted = [n for n in names if n.startswith("eval_") == held_out and n.rpartition("_")[0] not in listed]
    return {**titles, **{name: name.replace("eval_", "held-out ").replace("_", " ") for name in unlisted}}


def _add_fills(report: HtmlReport, lines: Sequence[Mapping[str, Any]]) -> None:
    """The model's first guess for the same held-out masks at several times of the run."""
    if not lines:
        return
    shown = _evenly_spaced(lines)
    report.heading(
        "The same held-out masks over training",
        "first guess for [MASK] and its probability, by step; _ is another mask that the model saw",
    )
    rows = [
        [fill["text"], fill["truth"], *(_guess(line["eval_fills"], number) for line in shown)]
        for number, fill in enumerate(shown[-1]["eval_fills"])
    ]
    report.table(["text", "truth", *(f"{line['step']:,}" for line in shown)], rows)


def _add_continuations(report: HtmlReport, lines: Sequence[Mapping[str, Any]]) -> None:
    """How the model went on from the same held-out words at several times of the run."""
    if not lines:
        return
    report.heading(
        "The same held-out words over training", "what follows them, drawn at temperature 0.8 from the 40 likeliest"
    )
    rows = [
        [f"{line['step']:,}", sample["text"], sample["continuation"]]
        for number in range(len(lines[-1]["eval_continuations"]))
        for line in _evenly_spaced(lines)
        for sample in line["eval_continuations"][number : number + 1]
    ]
    report.table(["step", "text", "continuation"], rows)


def _evenly_spaced(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first, the last, and some between: `MAX_SNAPSHOTS` at most."""
    gaps = MAX_SNAPSHOTS - 1
    return [lines[index] for index in sorted({round(gap * (len(lines) - 1) / gaps) for gap in range(gaps + 1)})]


def _guess(fills: Sequence[Mapping[str, Any]], number: int) -> str:
    return f"{fills[number]['guess']} {fills[number]['probability']:.0%}" if number < len(fills) else ""


def add_provenance(report: HtmlReport, provenance: Mapping[str, Any]) -> None:
    """Where a run comes from: software, machine, text, and every option."""
    report.heading("Where it comes from")
    facts = {name: value for name, value in provenance.items() if name != "options"}
    report.table(["", ""], [[name, str(value)] for name, value in {**facts, **provenance["options"]}.items()])


def finetuning_report(metrics: Sequence[Mapping[str, Any]], evaluation: Evaluation, title: str) -> HtmlReport:
    """The page of a fine-tuning run."""
    report = HtmlReport(title)
    add_finetuning(report, metrics, evaluation)
    return report


def add_finetuning(report: HtmlReport, metrics: Sequence[Mapping[str, Any]], evaluation: Evaluation) -> None:
    """Figures of merit, curves, figures by label, the confusion matrix, calibration and the worst mistakes."""
    figures = evaluation.metrics
    numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
    report.table([name.replace("_", " ") for name in numbers], [list(numbers.values())])
    deciding = next(iter(numbers))
    report.curves(
        metrics, {"loss": "training loss", deciding: f"{deciding.replace('_', ' ')} (decides which epoch is kept)"}
    )
    if figures.get("labels"):
        rows = [[label, *by_label.values()] for label, by_label in commonest_labels(figures["labels"])]
        if len(rows) < len(figures["labels"]):
            shown = f"the {len(rows)} commonest of {len(figures['labels']):,} labels; evaluation.json has all"
            report.heading("Figures by label", shown)
        report.table(["label", "precision", "recall", "F1", "support"], rows)
    if "confusion" in figures:
        report.confusion(list(figures["labels"]), figures["confusion"])
    elif figures.get("most_confused"):
        report.heading("The commonest mistakes", f"no confusion matrix: {figures['confusion_left_out']}")
        report.table(["truth", "predicted", "rows"], [list(pair.values()) for pair in figures["most_confused"]])
    table = evaluation.table()
    _add_calibration(report, table)
    _add_mistakes(report, table)


def _add_calibration(report: HtmlReport, table: Sequence[Mapping[str, Any]]) -> None:
    """How often predictions of each probability are right, with the expected calibration error (Naeini et al. 2015)."""
    judged = [
        (float(line["probability"]), bool(line["right"])) for line in table if {"probability", "right"} <= set(line)
    ]
    if not judged:
        return
    error, rows = 0.0, []
    for tenth in range(10):
        inside = [(probability, right) for probability, right in judged if min(9, int(probability * 10)) == tenth]
        if inside:
            mean, share_right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            error += abs(mean - share_right) * len(inside) / len(judged)
            rows.append([f"{tenth * 10}–{tenth * 10 + 10} %", len(inside), mean, share_right])
    report.heading(
        "Calibration", f"expected calibration error {error:.3f}: a probability of 0.8 should be right in 80 %"
    )
    report.table(["probability", "rows", "mean probability", "share that is right"], rows)


def _add_mistakes(report: HtmlReport, table: Sequence[Mapping[str, Any]]) -> None:
    """The most confident wrong predictions, or the farthest from the truth."""
    wrong = [line for line in table if line.get("right") is False or "error" in line]
    if not wrong:
        return
    by_error = "error" in wrong[0]
    sureness = "error" if by_error else "probability" if "probability" in wrong[0] else "least_probability"
    wrong.sort(key=lambda line: -float(line.get(sureness, 0)))
    report.heading("Farthest from the truth" if by_error else "The most confident mistakes")
    columns = [name for name in wrong[0] if name not in ("right", "start", "end")]
    shown = [[_shortened(line[name]) for name in columns] for line in wrong[:MAX_MISTAKES]]
    report.table(columns, shown)


def _shortened(value: Any) -> Any:
    return value[:MAX_CELL_CHARACTERS] + "…" if isinstance(value, str) and len(value) > MAX_CELL_CHARACTERS else value
