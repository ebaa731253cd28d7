"""A plan as text, by the template plan.jinja: a figure with its bounds where it has some."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from jaxtrain.runtime.cost import Range

FORMS: dict[str, Callable[[float], str]] = {
    "gib": lambda size: f"{size / 2**30:.3f} GiB",
    "seconds": lambda value: f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms",
    "count": lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}",
    "percent": lambda value: f"{value:.1%}",
    "number": lambda value: f"{value:.4g}",
}
"""How the template writes a figure, by the name of its filter."""


def text(found: dict[str, Any]) -> str:
    """found: `bill.described`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )

    def shown(form: Callable[[float], str], figure: Range | float | None) -> str:
        if isinstance(figure, Range):
            return f"{form(figure.value)} ({form(figure.low)} to {form(figure.high)})"
        return "unknown" if figure is None else form(figure)

    environment.filters |= {name: partial(shown, form) for name, form in FORMS.items()}
    lines = environment.get_template("plan.jinja").render(found).splitlines()
    return "\n".join(line.rstrip() for line in lines)
