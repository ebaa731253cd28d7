"""What the corpus was like before cleaning and after: rows and a picture from clean's `census.json`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from jaxtrain.report.drawing import DASHED, FAINT, INK, SERIES, panels, svg

Line = dict[str, Any]
PANELS, SOURCES = 4, 6  # most in the picture: signals across, sources down
WHEN = ("before", "after")
FINE = 24  # more bins than these are drawn in pairs
ROWS = 12  # of a table of labels; the rest are one row


def gather(found: Line, tokenizer: Mapping[str, Any] | None) -> Line:
    """What the page shows of a census. tokenizer: the counts of tokenize, if it ran."""
    return found | {
        "steps": steps(found["steps"], _tokens(tokenizer) if tokenizer else {}),
        "languages": labelled(found["languages"], unknown="too short to tell"),
        "topics": {name: labelled(sources) for name, sources in found["topics"].items()},
        "shown": shown(found),
    }


def _tokens(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    kinds = (tokenizer["documents"], tokenizer["conversations"])
    return {source: row["tokens"] for kind in kinds for source, row in kind.items()}


def steps(found: list[Line], tokens: Mapping[str, int]) -> list[Line]:
    """A row a step: `step`, `records`, `bytes`, `tokens`, and whether those were counted (`exact`).

    Only what is kept is ever encoded. Before that tokens are an estimate, to three digits: a source has as
    many a byte as its kept texts, or, where nothing of it was kept, as all others. None without a tokenizer.
    """
    last = found[-1]["left"]
    kept = {source: size for source, (_, size) in last.items() if size and tokens.get(source)}
    everywhere = sum(tokens[source] for source in kept) / max(sum(kept.values()), 1)
    rate = {source: tokens[source] / kept[source] if source in kept else everywhere for source in last}
    rows = []
    for step in found:
        left = step["left"]
        exact = bool(kept) and step is found[-1]
        count = sum(size * rate[source] for source, (_, size) in left.items())
        rows.append(
            {
                "step": step["step"],
                "records": sum(records for records, _ in left.values()),
                "bytes": sum(size for _, size in left.values()),
                "tokens": (round(count) if exact else int(float(f"{count:.3g}"))) if kept else None,
                "exact": exact,
            }
        )
    return rows


def labelled(sources: Mapping[str, Mapping[str, list[int]]], unknown: str = "") -> list[Line]:
    """A row a label, all sources together: `label`, `records_in`, `bytes_in`, `records`, `bytes` (of those
    kept); the largest first."""
    names = ("records_in", "bytes_in", "records", "bytes")
    rows: dict[str, Line] = {}
    for labels in sources.values():
        for label, counts in labels.items():
            row = rows.setdefault(label, {"label": label or unknown, **dict.fromkeys(names, 0)})
            for name, count in zip(names, counts, strict=True):
                row[name] += count
    return sorted(rows.values(), key=lambda row: (-row["bytes_in"], row["label"]))


def shortened(rows: list[Line]) -> list[Line]:
    """The first rows of `labelled`, and one for all others."""
    if len(rows) <= ROWS + 1:
        return rows
    rest = rows[ROWS:]
    others = {name: sum(row[name] for row in rest) for name in rest[0] if name != "label"}
    return [*rows[:ROWS], {"label": f"{len(rest)} others", **others}]


def by_size(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    """Clusters by doublings of their size: ("2", n), ("3 to 4", n), ("5 to 8", n), …"""
    found: Counter[int] = Counter()
    for size, count in sizes.items():
        found[(int(size) - 1).bit_length()] += count
    names = {power: f"{(1 << power - 1) + 1} to {1 << power}" if power > 1 else "2" for power in found}
    return [(names[power], found[power]) for power in sorted(found)]


def shown(found: Line) -> list[str]:
    """`words`, then the signals that cleaning changed most."""
    moved: Counter[str] = Counter()
    for signals in found["signals"].values():
        for signal, of in signals.items():
            before, after = (np.array(of[when], float) for when in WHEN)
            if after.sum():
                moved[signal] += np.abs(before - after / after.sum() * before.sum()).sum()
    ranked = [signal for signal, most in moved.most_common() if most and signal != "words"]
    return ["words", *ranked][:PANELS] if "words" in found["bins"] else []


def histograms(census: Line) -> Markup:
    """Signals across, sources down: before cleaning and after it, beside the limits."""
    sizes = {source: sum(of["words"]["before"]) for source, of in census["signals"].items()}
    sources = sorted(sizes, key=lambda source: -sizes[source])[:SOURCES]
    grid = panels(len(sources), len(census["shown"]), (7.6, 0.75 + 0.78 * len(sources)))
    for down, source in enumerate(sources):
        for across, signal in enumerate(census["shown"]):
            _panel(grid[down, across], census, source, signal, is_last=down == len(sources) - 1)
            if down == 0:
                grid[down, across].set_title(signal.replace("_", " "))
        grid[down, 0].set_ylabel(source, rotation=0, ha="right", va="center")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    limit = grid[0, 0].axvline(-9, color=INK, lw=1, ls=DASHED)
    grid[0, 0].figure.legend([*handles, limit], [*labels, "limit"], loc="outside upper left", ncols=3)
    return svg(grid[0, 0], "signals", "Distributions of signals before and after cleaning, by source")


def _panel(axes: Axes, census: Line, source: str, signal: str, is_last: bool) -> None:
    """One distribution. Bins are drawn equally wide, as far as any source has values."""
    edges = census["bins"][signal]
    used = np.sum([of[signal]["before"] for of in census["signals"].values()], axis=0).nonzero()[0]
    first, end = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(edges) - 1)
    places = [*range(first, end, 2 if end - first > FINE else 1), end]
    counts = census["signals"][source][signal]
    before, after = (np.add.reduceat(counts[when], places[:-1]) for when in WHEN)
    axes.stairs(before, places, fill=True, color=FAINT, label="collected")
    axes.stairs(after, places, color=SERIES[0], lw=1.3, label="kept")
    for limit in census["limits"][source].get(signal, ()):
        if limit is not None and edges[first] < limit < edges[end]:
            axes.axvline(float(np.interp(limit, edges, range(len(edges)))), color=INK, lw=1, ls=DASHED)
    apart = max(1, (end - first) // 3)
    apart = apart if apart <= 5 else 10  # of 40 bins of a share: 0, 0.25, 0.5, …
    ticks = range(-(-first // apart) * apart, end + 1, apart)
    axes.set(xlim=(first, end), ylim=(0, 1.08 * max(1, before.max())), yticks=[])
    axes.set_xticks(ticks, [_short(edges[tick]) for tick in ticks] if is_last else [])
    axes.grid(False)
    axes.spines["left"].set_visible(False)


def _short(value: float) -> str:
    """`0.25`, `512`, `33k`, `1M`."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.0f}{unit}"
    return f"{value:g}"
