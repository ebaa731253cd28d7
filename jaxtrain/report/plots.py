"""The pictures, as SVG text that stands in the page: it takes font and colours from it, also in the dark.

Matplotlib draws with stand-in colours, each replaced by a CSS variable of the page. The same numbers give
the same bytes: fixed ids, no date.
"""

import io
import re
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxtrain.report import gather

INK, FAINT = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606", "#070707", "#080808")
VARIABLES = {INK: "--ink", FAINT: "--faint"} | {color: f"--series-{n}" for n, color in enumerate(SERIES, 1)}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxtrain",
    "font.size": 9.0,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
}
WIDTH = {
    1: 5.8,
    2: 7.6,
    3: 7.6,
}  # inches, by panels; the page scales it to its column, one panel also to a phone


def funnel(sources: Mapping[str, Mapping[str, Any]]) -> str:
    """Bars of what became of each source's records, as shares: kept, held out, dropped."""
    names = list(sources)[::-1]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(1, 0.7 + 0.27 * len(names))
        left = [0.0] * len(names)
        for color, part in zip((SERIES[0], SERIES[1], FAINT), ("kept", "heldout", "dropped"), strict=True):
            widths = [100 * _records(sources[name], part) / max(1, sources[name]["in"]) for name in names]
            axes[0].barh(
                names, widths, left=left, height=0.62, color=color, label=part.replace("heldout", "held out")
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes[0].set(xlim=(0, 100), xlabel="share of the records, %")
        axes[0].grid(False)
        axes[0].legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, handlelength=1)
        return _svg(
            figure, "funnel", "Share of the records of each source that were kept, held out and dropped"
        )


def pretraining(lines: list[dict[str, Any]]) -> str:
    """Training loss a step, and bits per byte of held-out text by source."""
    trained, evaluated = gather.steps(lines), gather.heldout(lines)
    sources = sorted(
        {name.split("/")[1] for line in evaluated for name in line if name.startswith("bits_per_byte/")}
    )
    with mpl.rc_context(STYLE):
        figure, (loss, heldout) = _figure(2, 2.9)
        loss.plot(
            [line["step"] for line in trained], [line["loss"] for line in trained], color=SERIES[0], lw=1.2
        )
        loss.set(title="training loss, nats a token", xlabel="step")
        at = [line["step"] for line in evaluated]
        for color, source in zip(cycle(SERIES[1:]), sources, strict=False):
            points = [line[f"bits_per_byte/{source}"] for line in evaluated]
            heldout.plot(at, points, "o-", color=color, ms=4, lw=1.2, label=source)
        heldout.plot(at, [line["bits_per_byte"] for line in evaluated], "o-", color=INK, ms=4, label="all")
        heldout.set(title="held-out text, bits per byte", xlabel="step")
        heldout.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=1.2)
        return _svg(figure, "pretrain", "Pretraining loss by step and held-out bits per byte by source")


def finetuning(lines: list[dict[str, Any]]) -> str:
    """Loss on the assistant's tokens, of training batches and of held-out conversations."""
    trained, evaluated = gather.steps(lines), gather.heldout(lines)
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(1, 2.3)
        axes.plot(
            [line["step"] for line in trained],
            [line["loss"] for line in trained],
            color=SERIES[0],
            lw=1.2,
            label="training",
        )
        axes.plot(
            [line["step"] for line in evaluated],
            [line["loss"] for line in evaluated],
            "o",
            color=SERIES[1],
            label="held-out conversations",
        )
        axes.set(title="loss, nats a token of the assistant", xlabel="step")
        axes.legend()
        return _svg(figure, "finetune", "Fine-tuning loss by step, of training and of held-out conversations")


def reward_against_kl(lines: list[dict[str, Any]], counts: Mapping[str, float]) -> str:
    """Gains of proxy reward and true utility over the fine-tuned model against KL, and KL by update.

    counts: of the PPO artifact. The reward is in SD of the fine-tuned model's answers already.
    """
    kl, updates = [line["kl"] for line in lines], [line["step"] for line in lines]
    reward = [line["reward"] - counts["reward_before"] for line in lines]
    utility = [(line["utility"] - counts["utility_before"]) / counts["utility_sd_before"] for line in lines]
    with mpl.rc_context(STYLE):
        figure, (gains, by_update) = _figure(2, 2.9)
        for values, color, label in (
            (reward, SERIES[0], "proxy reward"),
            (utility, SERIES[1], "true utility"),
        ):
            gains.plot(kl, values, color=color, lw=0.8, alpha=0.6)
            gains.plot(kl, values, "o", color=color, ms=3.5, label=label)
        gains.set(title="gain, SD of the fine-tuned model's answers", xlabel="KL, nats a sequence")
        gains.legend()
        by_update.plot(updates, kl, color=INK)
        by_update.set(title="KL, nats a sequence", xlabel="PPO update")
        return _svg(figure, "ppo", "Gain in proxy reward and true utility against KL, and KL by update")


def benchmarks(rows: list[dict[str, Any]]) -> str:
    """Each model's score on each task with two standard errors, and chance."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(1, 0.8 + 0.42 * len(rows))
        for number, row in enumerate(rows[::-1]):
            axes.plot(
                [100 * row["chance"]] * 2,
                [number - 0.34, number + 0.34],
                color=INK,
                lw=1.2,
                ls=(0, (2, 1.5)),
                label="chance" if number == 0 else None,
            )
            for place, (model, score) in enumerate(row["models"].items()):
                axes.errorbar(
                    100 * score["value"],
                    number + 0.22 - 0.22 * place,
                    xerr=200 * score["standard_error"],
                    fmt="o",
                    ms=4.5,
                    lw=1.3,
                    color=SERIES[place % len(SERIES)],
                    label=model if number == 0 else None,
                )
        axes.set_yticks(range(len(rows)), [row["task"] for row in rows[::-1]])
        axes.set(xlabel="score, %", ylim=(-0.6, len(rows) - 0.4))
        axes.grid(visible=False, axis="y")
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
        return _svg(figure, "benchmarks", "Benchmark scores with two standard errors, beside chance")


def _records(counts: Mapping[str, Any], part: str) -> int:
    return sum(counts["dropped"].values()) if part == "dropped" else counts[part]


def _figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH[panels], height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for panel in axes:
        panel.xaxis.set_major_locator(MaxNLocator(5 if panels > 1 else 8, steps=[1, 2, 5, 10]))
    return figure, axes


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element; its ids begin with `name`, for those of a page must differ."""
    text = io.StringIO()
    figure.savefig(
        text,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
