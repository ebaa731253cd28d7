"""`jaxtrain report RUN [RUN2 …]`: a page of what stands in a run's folder, or of several runs side by side.

A run's folder holds artifacts (`runs/quickstart`). A training stage that is at work is shown as far as it is;
`--watch 30` writes the page anew every 30 seconds, and the browser reads it again.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl

from jaxtrain.report import gather, plots
from jaxtrain.report.costs import Prices
from jaxtrain.report.drawing import STYLE
from jaxtrain.report.run import template, write, write_page
from jaxtrain.runtime.progress import say

Run = tuple[dict[str, Path], gather.Results]


@dataclass(frozen=True, kw_only=True)
class PagesConfig:
    """One page of a run's folder, finished or at work, or of several runs side by side."""

    runs: tuple[str, ...]
    """Folders of artifacts, for example runs/quickstart."""
    out: str = ""
    """Folder to write; empty: the first run's `report`."""
    watch: int = 0
    """Seconds between pages; 0: one page."""
    prices: Prices = field(default_factory=Prices)


def report(config: PagesConfig) -> Path:
    """Write the page, again and again where it watches; where it is."""
    out = Path(config.out or Path(config.runs[0]) / "report")
    if config.watch:
        jax.config.update("jax_platforms", "cpu")  # the accelerators are the run's
    while True:
        out.mkdir(parents=True, exist_ok=True)
        _write([Path(run) for run in config.runs], out, config.prices, config.watch)
        if not config.watch:
            return out / "report.html"
        say(f"{out / 'report.html'} written; again in {config.watch} s, until Ctrl-C")
        time.sleep(config.watch)


def _write(runs: list[Path], out: Path, prices: Prices, refresh: int) -> None:
    folders = {str(run): gather.find(run) for run in runs}
    if len(folders) == 1:
        write_page(folders[str(runs[0])], out, prices, refresh)
    else:
        write_comparison({run: (of, gather.gather(of, prices)) for run, of in folders.items()}, out, refresh)


@mpl.rc_context(fname=STYLE)
def write_comparison(runs: Mapping[str, Run], out: Path, refresh: int = 0) -> None:
    """`report.html` and `results.json` of several runs."""
    short = dict(zip(runs, _short(list(runs)), strict=True))
    everything = {short[run]: results for run, (_, results) in runs.items()}
    for results in everything.values():
        results["headline"] = gather.headline(results)
    curves = {
        short[run]: gather.read_lines(folders["pretrain"] / "metrics.jsonl")
        for run, (folders, _) in runs.items()
        if "pretrain" in folders
    }
    extraction, exposure = (_labelled(everything, part) for part in ("extraction", "exposure"))
    page = template("compare.html").render(
        runs={run: defaultdict(lambda: None, results) for run, results in everything.items()},
        paths={short[run]: run for run in runs},
        plots=plots,
        curves=curves,
        measures=_by_run(everything, lambda of: [(row["measure"], row["value"]) for row in of["headline"]]),
        benchmarks=_by_run(
            everything, lambda of: [((row["task"], row["model"]), row) for row in of.get("benchmarks", [])]
        ),
        extraction=extraction,
        exposure=exposure,
        settings=_differing(everything),
        refresh=refresh,
    )
    write(out, everything, {"report.html": page})


def _short(runs: list[str]) -> list[str]:
    """Last names, where they tell the runs apart."""
    names = [Path(run).name for run in runs]
    return names if len(set(names)) == len(names) else runs


def _labelled(everything: Mapping[str, gather.Results], part: str) -> list[dict[str, Any]]:
    """Rows of all runs; a model is called by its run, and by its own name where the run has several."""
    rows = []
    for run, results in everything.items():
        own = results.get(part, [])
        several = len(gather.models(own)) > 1
        rows += [{**row, "model": f"{run}: {row['model']}" if several else run} for row in own]
    return rows


def _by_run(
    everything: Mapping[str, gather.Results], rows: Callable[[gather.Results], Iterable[tuple[Any, Any]]]
) -> dict[Any, dict[str, Any]]:
    """Key of a row to run to value."""
    found: dict[Any, dict[str, Any]] = {}
    for run, results in everything.items():
        for key, value in rows(results):
            found.setdefault(key, {})[run] = value
    return found


def _settings(results: gather.Results) -> Iterator[tuple[tuple[str, str], Any]]:
    """(artifact, field of its config) and value."""
    for name, config in results["run"]["config"].items():
        yield from (((name, field_name), value) for field_name, value in config.items())


def _differing(everything: Mapping[str, gather.Results]) -> dict[tuple[str, str], dict[str, Any]]:
    """The fields in which configs differ, of the artifacts that several runs have.

    Of a list or mapping with other items in each run no more than that.
    """
    have = Counter(name for results in everything.values() for name in results["run"]["config"])
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for (name, field_name), values in _by_run(everything, _settings).items():
        is_apart = len(values) < have[name] or len(set(map(str, values.values()))) > 1
        is_told = any(name == of and field_name.startswith(f"{whole}.") for of, whole in found)
        if have[name] > 1 and is_apart and not is_told:
            found[name, field_name] = values
    return found
