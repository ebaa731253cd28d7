"""Figures as SVG text that stands in the page: it takes font and colours from it, also in the dark.

Matplotlib draws with stand-in colours, each replaced by a CSS variable of the page. The same numbers give
the same bytes: fixed ids, no date.
"""

import io
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606", "#070707", "#080808")
VARIABLES = {INK: "--ink", FAINT: "--faint"} | {color: f"--series-{n}" for n, color in enumerate(SERIES, 1)}
DASHED = (0, (2, 1.5))
STYLE = Path(__file__).with_name("page.mplstyle")


def panels(down: int, across: int, inches: tuple[float, float]) -> Any:
    """Axes [down, across] of one figure."""
    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasSVG(figure)
    return figure.subplots(down, across, squeeze=False)


def svg(axes: Axes, name: str, label: str) -> Markup:
    """The axes' figure as an <svg> element; its ids begin with `name`, for those of a page must differ."""
    text, undated = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    axes.get_figure(root=True).savefig(text, format="svg", transparent=True, metadata=undated)
    markup = text.getvalue()
    markup = markup[markup.index("<svg") :].strip()
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', markup))
    own = lambda found: f' id="{name}-{found[1]}"' if found[1] in used else ""  # noqa: E731
    markup = re.sub(r' id="([^"]+)"', own, markup)
    markup = re.sub(r'(url\(|href=")#', rf"\1#{name}-", markup)
    for color, variable in VARIABLES.items():
        markup = markup.replace(color, f"var({variable})")
    markup = re.sub(r' (width|height)="[\d.]+pt"', "", markup, count=2)
    return Markup(markup.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))
