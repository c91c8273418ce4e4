"""Curves of a run's metrics as SVG that takes the page's colours, drawn by matplotlib."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

from bothways.pages.display_names import display_name

TEXT_COLOUR = "#010203"  # stands for the page's own text colour, light or dark
TRAINING_COLOUR, HELD_OUT_COLOUR = "#3b82f6", "#ea7317"  # the same in every chart, readable on light and dark
INCHES = (3.7, 2.5)  # of a chart: with letters of 9 points 12 pixels high on a telephone's 360
MAX_TICKS = 5  # of the horizontal axis, so that numbers with commas do not touch


def can_draw_curves() -> bool:
    """Whether matplotlib, the `report` extra, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curve_svg(metrics: Sequence[Mapping[str, Any]], name: str, epochs_per_step: float | None = None) -> str:
    """A figure of training over steps, with the held-out one of the same name (`eval_NAME`) where there is any.

    metrics: lines of metrics.jsonl. epochs_per_step: the axis counts epochs instead.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    style: Any = {"svg.hashsalt": "bothways", "svg.fonttype": "none", "font.size": 9}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    for part in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        style[part] = TEXT_COLOUR
    with mpl.rc_context(style):
        figure = Figure(figsize=INCHES, layout="constrained")
        panel = figure.subplots()
        curves = (
            (name, {"color": TRAINING_COLOUR, "label": "training"}),
            (f"eval_{name}", {"color": HELD_OUT_COLOUR, "label": "held-out", "marker": "o", "markersize": 3}),
        )
        for key, look in curves:
            points = [(line["step"] * (epochs_per_step or 1), line[key]) for line in metrics if key in line]
            if points:
                panel.plot(*zip(*points, strict=True), **look)
        panel.set_xlim(left=0)
        panel.set_title(display_name(name), loc="left", fontsize=9)
        panel.set_xlabel("epochs" if epochs_per_step else "steps")
        panel.xaxis.set_major_locator(MaxNLocator(MAX_TICKS, integer=True, min_n_ticks=1))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.legend(frameon=False)
        picture = io.StringIO()
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None})
    svg = picture.getvalue().replace(TEXT_COLOUR, "currentColor")
    return svg[svg.index("<svg") :]
