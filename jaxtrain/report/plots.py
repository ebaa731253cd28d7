"""The pictures of the page, as SVG text."""

import math
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxtrain.report import gather
from jaxtrain.report.drawing import FAINT, INK, SERIES, STYLE, svg

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
        return svg(
            figure, "funnel", "Share of the records of each source that were kept, held out and dropped"
        )


def pretraining(lines: list[dict[str, Any]]) -> str:
    """Training loss a step, with refused steps and rollbacks, and held-out bits per byte by source."""
    trained, evaluated = gather.steps(lines), gather.heldout(lines)
    sources = sorted(
        {name.split("/")[1] for line in evaluated for name in line if name.startswith("bits_per_byte/")}
    )
    with mpl.rc_context(STYLE):
        figure, (loss, heldout) = _figure(2, 2.9)
        steps, losses = [line["step"] for line in trained], [_number(line["loss"]) for line in trained]
        loss.plot(steps, losses, color=SERIES[0], lw=1.2)
        _mark(loss, lines)
        loss.set(title="training loss, nats a token", xlabel="step")
        at = [line["step"] for line in evaluated]
        for color, source in zip(cycle(SERIES[1:]), sources, strict=False):
            points = [line[f"bits_per_byte/{source}"] for line in evaluated]
            heldout.plot(at, points, "o-", color=color, ms=4, lw=1.2, label=source)
        heldout.plot(at, [line["bits_per_byte"] for line in evaluated], "o-", color=INK, ms=4, label="all")
        heldout.set(title="held-out text, bits per byte", xlabel="step")
        heldout.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=1.2)
        return svg(
            figure,
            "pretrain",
            "Pretraining loss by step with refused steps and rollbacks; held-out bits per byte by source",
        )


def _mark(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """Refused steps as crosses at the top, rollbacks as dashed lines."""
    refused = [line["step"] for line in gather.steps(lines) if not line["accepted"]]
    rollbacks = [line["step"] for line in lines if line.get("kind") == "rollback"]
    if refused:
        top = axes.get_xaxis_transform()
        axes.plot(
            refused, [0.97] * len(refused), "x", color=SERIES[1], ms=5, transform=top, label="refused step"
        )
    for number, step in enumerate(rollbacks):
        label = "rollback" if number == 0 else None
        axes.axvline(step, color=SERIES[5], lw=1, ls=(0, (3, 2)), label=label)
    if refused or rollbacks:
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.92))


def pace(lines: list[dict[str, Any]]) -> str:
    """Learning rate, and tokens a second of each step."""
    trained = gather.steps(lines)
    with mpl.rc_context(STYLE):
        figure, (rate, speed) = _figure(2, 2.3)
        steps = [line["step"] for line in trained]
        rate.plot(steps, [line.get("learning_rate", math.nan) for line in trained], color=SERIES[2])
        rate.set(title="learning rate", xlabel="step", ylim=(0, None))
        speeds = [line["targets"] / line["seconds"] for line in trained[1:]]
        speed.plot(steps[1:], speeds, color=SERIES[3], lw=1)
        speed.set(title="tokens a second", xlabel="step", ylim=(0, None))
        return svg(figure, "pace", "Learning rate by step and tokens a second by step")


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
        return svg(figure, "finetune", "Fine-tuning loss by step, of training and of held-out conversations")


def reward_against_kl(lines: list[dict[str, Any]], counts: Mapping[str, float]) -> str:
    """Gains of proxy reward and (where known) true utility against KL, and KL by round.

    counts: of the PPO artifact. The reward is in SD of the fine-tuned model's answers already.
    """
    rounds = gather.rounds(lines)
    kl, numbers = [line["kl"] for line in rounds], [line["round"] for line in rounds]
    gained = {"proxy reward": [line["reward"] - counts["reward_before"] for line in rounds]}
    if "utility_before" in counts:
        mean, sd = counts["utility_before"], counts["utility_sd_before"]
        gained["true utility"] = [(line["utility"] - mean) / sd for line in rounds]
    with mpl.rc_context(STYLE):
        figure, (gains, by_round) = _figure(2, 2.9)
        for color, (label, values) in zip(SERIES, gained.items(), strict=False):
            gains.plot(kl, values, color=color, lw=0.8, alpha=0.6)
            gains.plot(kl, values, "o", color=color, ms=3.5, label=label)
        gains.set(title="gain, SD of the fine-tuned model's answers", xlabel="KL, nats a sequence")
        gains.legend()
        by_round.plot(numbers, kl, color=INK)
        by_round.set(title="KL, nats a sequence", xlabel="round")
        return svg(figure, "ppo", f"Gain in {' and '.join(gained)} against KL, and KL by round")


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
        return svg(figure, "benchmarks", "Benchmark scores with two standard errors, beside chance")


def positions(rows: list[dict[str, Any]]) -> str:
    """Perplexity of a token by how many came before it, a line a model."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(1, 2.5)
        for color, model in zip(cycle(SERIES), gather.models(rows), strict=False):
            of = [row for row in rows if row["model"] == model]
            places = [max(0.5, row["from"]) for row in of]
            axes.plot(
                places, [row["perplexity"] for row in of], "o-", color=color, ms=3.5, lw=1.2, label=model
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for which in ("set_major_formatter", "set_minor_formatter"):
            getattr(axes.yaxis, which)(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: "0" if value < 1 else f"{value:g}")
        axes.set(title="perplexity of a token", xlabel="tokens of the document before it")
        axes.legend()
        return svg(
            figure, "positions", "Perplexity of a token by how many tokens of its document came before"
        )


def memorization(extraction: list[dict[str, Any]], exposure: list[dict[str, Any]]) -> str:
    """Share of planted texts extracted, and exposure of canaries, by how often training saw them."""
    planted = [row for row in extraction if row["count"] is not None]
    longest = max((row["prefix"] for row in planted), default=0)
    planted = [row for row in planted if row["prefix"] == longest]
    with mpl.rc_context(STYLE):
        figure, (rate, bits) = _figure(2, 2.9)
        for color, model in zip(cycle(SERIES), gather.models([*planted, *exposure]), strict=False):
            of = [row for row in planted if row["model"] == model]
            values = [100 * row["rate"] for row in of]
            spread = [
                [100 * (row["rate"] - row["low"]) for row in of],
                [100 * (row["high"] - row["rate"]) for row in of],
            ]
            rate.errorbar(_counts(of), values, spread, fmt="o-", color=color, ms=4, lw=1.2, label=model)
            of = [row for row in exposure if row["model"] == model]
            errors = [2 * (row["standard_error"] or 0) for row in of]
            shown = [row["exposure"] for row in of]
            bits.errorbar(_counts(of), shown, errors, fmt="o-", color=color, ms=4, lw=1.2, label=model)
        rate.set(title=f"extracted behind {longest} tokens, %", ylim=(-4, 104))
        bits.set(title="exposure of canaries, bits")
        for axes in (rate, bits):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: {0.25: "never", 0.5: ""}.get(value, f"{value:g}"))
            axes.set(xlabel="copies in the documents collected")
        rate.legend()
        return svg(
            figure,
            "memorization",
            "Texts extracted and exposure of canaries by their copies in training data",
        )


def _counts(rows: list[dict[str, Any]]) -> list[float]:
    """Where they stand on a logarithmic axis; text never trained on at a quarter."""
    return [max(0.25, row["count"]) for row in rows]


def bias(rows: list[dict[str, Any]]) -> str:
    """Shares with their intervals beside what no preference would give, the last model's."""
    model = gather.models(rows)[-1]
    shown = [row for row in rows if row["model"] == model and row["fair"] == 0.5][::-1]
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(1, 0.7 + 0.26 * len(shown))
        for number, row in enumerate(shown):
            value, low, high = (100 * row[name] for name in ("value", "low", "high"))
            color = SERIES[0] if row["group"] == "all" else SERIES[3]
            axes.errorbar(
                value, number, xerr=[[value - low], [high - value]], fmt="o", ms=4, lw=1.2, color=color
            )
        axes.axvline(50, color=INK, lw=1, ls=(0, (2, 1.5)))
        names = [f"{row['measure'].replace('_', ' ')}: {row['group'].replace('-', ' ')}" for row in shown]
        axes.set_yticks(range(len(shown)), names)
        axes.set(xlabel="stereotype preferred, % (dashes: no preference)", ylim=(-0.6, len(shown) - 0.4))
        axes.grid(visible=False, axis="y")
        return svg(figure, "bias", f"How often {model} prefers the stereotype, with 95 % intervals")


def runs_apart(curves: Mapping[str, list[dict[str, Any]]]) -> str:
    """Training loss and held-out bits per byte of several runs, by tokens."""
    with mpl.rc_context(STYLE):
        figure, (loss, heldout) = _figure(2, 3.0)
        for color, (run, lines) in zip(cycle(SERIES), curves.items(), strict=False):
            trained, evaluated = gather.steps(lines), gather.heldout(lines)
            tokens, seen = [0.0], {}
            for line in trained:
                tokens.append(tokens[-1] + line["targets"])
                seen[line["step"]] = tokens[-1]
            losses = [_number(line["loss"]) for line in trained]
            loss.plot([n / 1e6 for n in tokens[1:]], losses, color=color, lw=1.1, label=run)
            at = [seen[line["step"]] / 1e6 for line in evaluated if line["step"] in seen]
            points = [line["bits_per_byte"] for line in evaluated if line["step"] in seen]
            heldout.plot(at, points, "o-", color=color, ms=4, lw=1.2, label=run)
        loss.set(title="training loss, nats a token", xlabel="million tokens")
        heldout.set(title="held-out text, bits per byte", xlabel="million tokens")
        loss.legend()
        return svg(figure, "runs", "Training loss and held-out bits per byte of each run by tokens")


def _number(value: float | None) -> float:
    """null in the log is a value that was not finite."""
    return math.nan if value is None else value


def _records(counts: Mapping[str, Any], part: str) -> int:
    return sum(counts["dropped"].values()) if part == "dropped" else counts[part]


def _figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH[panels], height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for panel in axes:
        panel.xaxis.set_major_locator(MaxNLocator(5 if panels > 1 else 8, steps=[1, 2, 5, 10]))
    return figure, axes
