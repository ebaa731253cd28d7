"""The pictures of the page, as SVG text; whoever asks for them sets `drawing.STYLE`."""

import math
from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxtrain.report import gather
from jaxtrain.report.drawing import DASHED, FAINT, INK, SERIES, panels, svg

Lines = list[dict[str, Any]]
MEASURES = {
    "reward": "reward, mean",
    "accuracy": "better answer preferred",
    "divergence": "divergence, nats a token",
    "entropy": "entropy, nats a token",
    "length": "tokens of an answer",
    "kl": "KL, nats a sequence",
    "loss": "loss",
    "learning_rate": "learning rate",
    "speed": "tokens a second",
}
"""Of a line of metrics.jsonl, those that are drawn of any training, the first three of them."""
WIDTH = {1: 5.8, 2: 7.6, 3: 7.6}
"""Inches by panels; the page scales it to its column, one panel also to a phone."""
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0}
"""Where a legend stands that would hide the data."""


def funnel(sources: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Bars of what became of each source's records, as shares: kept, held out, dropped."""
    names = list(sources)[::-1]
    dropped = {name: sum(of["dropped"].values()) for name, of in sources.items()}
    (axes,) = _panels(1, 0.7 + 0.27 * len(names))
    left = [0.0] * len(names)
    for color, part in zip((SERIES[0], SERIES[1], FAINT), ("kept", "heldout", "dropped"), strict=True):
        counts = [dropped[name] if part == "dropped" else sources[name][part] for name in names]
        of = [max(1, sources[name]["in"]) for name in names]
        widths = [100 * count / whole for count, whole in zip(counts, of, strict=True)]
        label = part.replace("heldout", "held out")
        axes.barh(names, widths, left=left, height=0.62, color=color, label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlim=(0, 100), xlabel="share of the records, %")
    axes.grid(False)
    axes.legend(ncols=3, handlelength=1, **ABOVE)
    return svg(axes, "funnel", "Share of the records of each source that were kept, held out and dropped")


def pretraining(lines: Lines) -> Markup:
    """Training loss a step, with refused steps and rollbacks, and held-out bits per byte by source."""
    evaluated = gather.of_kind(lines, "heldout")
    measures = {name for line in evaluated for name in line if name.startswith("bits_per_byte/")}
    loss, heldout = _panels(2, 2.9)
    _curve(loss, gather.of_kind(lines), "loss", color=SERIES[0], lw=1.2)
    _mark(loss, lines)
    loss.set(title="training loss, nats a token", xlabel="step")
    look = {"marker": "o", "ms": 4}
    for color, name in zip(cycle(SERIES[1:]), sorted(measures), strict=False):
        _curve(heldout, evaluated, name, color=color, lw=1.2, label=name.split("/")[1], **look)
    _curve(heldout, evaluated, "bits_per_byte", color=INK, label="all", **look)
    heldout.set(title="held-out text, bits per byte", xlabel="step")
    heldout.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=1.2)
    label = "Pretraining loss by step with refused steps and rollbacks; held-out bits per byte by source"
    return svg(loss, "pretrain", label)


def _mark(axes: Axes, lines: Lines) -> None:
    """Refused steps as crosses at the top, rollbacks as dashed lines."""
    refused = [line["step"] for line in gather.of_kind(lines) if not line["accepted"]]
    rollbacks = [line["step"] for line in gather.of_kind(lines, "rollback")]
    look = {"color": SERIES[1], "ms": 5, "transform": axes.get_xaxis_transform()}
    if refused:
        axes.plot(refused, [0.97] * len(refused), "x", label="refused step", **look)
    for number, step in enumerate(rollbacks):
        label = "rollback" if number == 0 else None
        axes.axvline(step, color=SERIES[5], lw=1, ls=(0, (3, 2)), label=label)
    if refused or rollbacks:
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.92))


def learning(name: str, lines: Lines, measures: Iterable[str] = MEASURES) -> Markup:
    """What a training said of itself, a panel a measure; a policy's by rounds of sampling. Empty: nothing."""
    rounds = gather.of_kind(lines, "round")
    by, found = ("round", rounds) if rounds else ("step", gather.of_kind(lines))
    heldout = [] if rounds else gather.of_kind(lines, "heldout")
    shown = [measure for measure in measures if any(measure in line for line in found + heldout)][
        : max(WIDTH)
    ]
    for axes, measure in zip(_panels(len(shown), 2.3) if shown else (), shown, strict=True):
        points = {"label": "held out", "color": SERIES[1], "ls": "", "marker": "o", "ms": 4}
        for of, look in ((found, {"label": "training", "color": SERIES[0], "lw": 1.2}), (heldout, points)):
            if any(measure in line for line in of):
                _curve(axes, of, measure, by=by, **look)
        axes.set(title=MEASURES[measure], xlabel=by)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if heldout:
            axes.legend()
    return svg(axes, name, f"{', '.join(shown)} by {by}") if shown else Markup()


def pace(lines: Lines) -> Markup:
    """Learning rate and tokens a second of each step; the first compiles."""
    trained = gather.of_kind(lines)[1:]
    paced = [line | {"speed": line["targets"] / line["seconds"]} for line in trained]
    return learning("pace", paced, ("learning_rate", "speed"))


def reward_against_kl(lines: Lines, counts: Mapping[str, float]) -> Markup:
    """Gains of proxy reward and (where known) true utility against KL.

    counts: of the PPO artifact. The reward is in SD of the fine-tuned model's answers already.
    """
    rounds = gather.of_kind(lines, "round")
    kl = [line["kl"] for line in rounds]
    gained = {"proxy reward": [line["reward"] - counts["reward_before"] for line in rounds]}
    if "utility_before" in counts:
        mean, sd = counts["utility_before"], counts["utility_sd_before"]
        gained["true utility"] = [(line["utility"] - mean) / sd for line in rounds]
    (gains,) = _panels(1, 2.6)
    for color, (label, values) in zip(SERIES, gained.items(), strict=False):
        gains.plot(kl, values, color=color, lw=0.8, alpha=0.6)
        gains.plot(kl, values, "o", color=color, ms=3.5, label=label)
    gains.set(title="gain, SD of the fine-tuned model's answers", xlabel="KL, nats a sequence")
    gains.legend()
    return svg(gains, "ppo", f"Gain in {' and '.join(gained)} against KL")


def benchmarks(rows: Lines) -> Markup:
    """Each model's score on each task with two standard errors, and chance."""
    (axes,) = _panels(1, 0.8 + 0.42 * len(rows))
    for number, row in enumerate(rows[::-1]):
        chance, label = [100 * row["chance"]] * 2, None if number else "chance"
        axes.plot(chance, [number - 0.34, number + 0.34], label=label, color=INK, lw=1.2, ls=DASHED)
        for place, (model, score) in enumerate(row["models"].items()):
            look = {"color": SERIES[place % len(SERIES)], "label": None if number else model}
            at, error = number + 0.22 - 0.22 * place, 200 * score["standard_error"]
            axes.errorbar(100 * score["value"], at, xerr=error, fmt="o", ms=4.5, lw=1.3, **look)
    _name(axes, [row["task"] for row in rows[::-1]], "score, %")
    axes.legend(ncols=4, **ABOVE)
    return svg(axes, "benchmarks", "Benchmark scores with two standard errors, beside chance")


def positions(rows: Lines) -> Markup:
    """Perplexity of a token by how many came before it, a line a model."""
    (axes,) = _panels(1, 2.5)
    for color, model in zip(cycle(SERIES), gather.models(rows), strict=False):
        of = [row for row in rows if row["model"] == model]
        places, values = [max(0.5, row["from"]) for row in of], [row["perplexity"] for row in of]
        axes.plot(places, values, "o-", color=color, ms=3.5, lw=1.2, label=model)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: "0" if value < 1 else f"{value:g}")
    axes.set(title="perplexity of a token", xlabel="tokens of the document before it")
    axes.legend()
    return svg(axes, "positions", "Perplexity of a token by how many tokens of its document came before")


def memorization(extraction: Lines, exposure: Lines) -> Markup:
    """Share of planted texts extracted, and exposure of canaries, by how often training saw them."""
    planted = [row for row in extraction if row["count"] is not None]
    longest = max((row["prefix"] for row in planted), default=0)
    planted = [row for row in planted if row["prefix"] == longest]
    rate, bits = _panels(2, 2.9)
    look = {"fmt": "o-", "ms": 4, "lw": 1.2}
    for color, model in zip(cycle(SERIES), gather.models([*planted, *exposure]), strict=False):
        of = [row for row in planted if row["model"] == model]
        low, value, high = ([100 * row[name] for row in of] for name in ("low", "rate", "high"))
        rate.errorbar(_counts(of), value, _whiskers(low, value, high), color=color, label=model, **look)
        of = [row for row in exposure if row["model"] == model]
        errors = [2 * (row["standard_error"] or 0) for row in of]
        shown = [row["exposure"] for row in of]
        bits.errorbar(_counts(of), shown, errors, color=color, label=model, **look)
    rate.set(title=f"extracted behind {longest} tokens, %", ylim=(-4, 104))
    bits.set(title="exposure of canaries, bits")
    for axes in (rate, bits):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: {0.25: "never", 0.5: ""}.get(value, f"{value:g}"))
        axes.set(xlabel="copies in the documents collected")
    rate.legend()
    label = "Texts extracted and exposure of canaries by their copies in training data"
    return svg(rate, "memorization", label)


def _counts(rows: Lines) -> list[float]:
    """Where they stand on a logarithmic axis; text never trained on at a quarter."""
    return [max(0.25, row["count"]) for row in rows]


def _whiskers(low: list[float], value: list[float], high: list[float]) -> np.ndarray:
    return np.diff([low, value, high], axis=0)


def bias(rows: Lines) -> Markup:
    """Shares with their intervals beside what no preference would give, the last model's."""
    model = gather.models(rows)[-1]
    shown = [row for row in rows if row["model"] == model and row["fair"] == 0.5][::-1]
    (axes,) = _panels(1, 0.7 + 0.26 * len(shown))
    for number, row in enumerate(shown):
        low, value, high = ([100 * row[name]] for name in ("low", "value", "high"))
        look = {"color": SERIES[0] if row["group"] == "all" else SERIES[3], "ms": 4, "lw": 1.2}
        axes.errorbar(value, [number], xerr=_whiskers(low, value, high), fmt="o", **look)
    axes.axvline(50, color=INK, lw=1, ls=DASHED)
    names = [f"{row['measure'].replace('_', ' ')}: {row['group'].replace('-', ' ')}" for row in shown]
    _name(axes, names, "stereotype preferred, % (dashes: no preference)")
    return svg(axes, "bias", f"How often {model} prefers the stereotype, with 95 % intervals")


def _name(axes: Axes, rows: list[str], measure: str) -> None:
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=measure, ylim=(-0.6, len(rows) - 0.4))
    axes.grid(visible=False, axis="y")


def runs_apart(curves: Mapping[str, Lines]) -> Markup:
    """Training loss and held-out bits per byte of several runs, by tokens."""
    loss, heldout = _panels(2, 3.0)
    for color, (run, lines) in zip(cycle(SERIES), curves.items(), strict=False):
        tokens, trained, evaluated = 0.0, [], []
        for line in lines:
            if "kind" not in line:
                tokens += line["targets"]
                trained.append({**line, "tokens": tokens / 1e6})
            elif line["kind"] == "heldout" and trained:
                evaluated.append({**line, "tokens": tokens / 1e6})
        _curve(loss, trained, "loss", by="tokens", color=color, lw=1.1, label=run)
        look = {"marker": "o", "ms": 4, "lw": 1.2}
        _curve(heldout, evaluated, "bits_per_byte", by="tokens", color=color, label=run, **look)
    loss.set(title="training loss, nats a token", xlabel="million tokens")
    heldout.set(title="held-out text, bits per byte", xlabel="million tokens")
    loss.legend()
    return svg(loss, "runs", "Training loss and held-out bits per byte of each run by tokens")


def _curve(axes: Axes, lines: Lines, name: str, by: str = "step", **look: Any) -> None:
    """One measure of the log; null there is a value that was not finite."""
    values = [math.nan if (value := line.get(name)) is None else value for line in lines]
    axes.plot([line[by] for line in lines], values, **look)


def _panels(count: int, height: float) -> list[Axes]:
    """Panels side by side, with few and round ticks."""
    row = list(panels(1, count, (WIDTH[count], height))[0])
    for axes in row:
        axes.xaxis.set_major_locator(MaxNLocator(5 if count > 1 else 8, steps=[1, 2, 5, 10]))
    return row
