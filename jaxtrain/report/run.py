"""ReportConfig and run(): one page of a whole run; show() prints its table."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import matplotlib as mpl
from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table

from jaxtrain import artifact
from jaxtrain.config import Stage
from jaxtrain.fields import Operational
from jaxtrain.report import census, gather, plots
from jaxtrain.report.costs import Prices
from jaxtrain.report.drawing import STYLE
from jaxtrain.report.gather import duration, share
from jaxtrain.report.verdicts import verdicts
from jaxtrain.runtime import cost
from jaxtrain.runtime.files import read_object, write_whole

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Stage):
    """The finished artifacts of one run, and where its report goes."""

    VERSION: ClassVar[int] = 7

    run: Operational[str]
    """Folder that holds the artifacts, such as runs/quickstart; all of them are shown."""
    prices: Prices = field(default_factory=Prices)


def run(config: ReportConfig) -> Path:
    """The page as an artifact; UserError where one of the run was not made from the one before it."""
    found = gather.find(Path(config.run))
    folders = {name: folder for name, folder in found.items() if not gather.is_live(folder)}
    gather.check_chain(folders)
    return artifact.produce(
        config, folders, lambda out: {"headline": write_page(folders, out, config.prices)}
    )


def show(folder: Path) -> None:
    """Print the results of a report artifact as a table to stdout, and where the page is."""
    results = read_object(folder / "results.json")
    columns = ("measure", Column("value", justify="right"), "beside")
    table = Table(*columns, title="results", title_justify="left")
    for row in results["headline"]:
        table.add_row(row["measure"], row["value"], row["beside"])
    console = Console(highlight=False)
    console.print(table)
    for verdict in results["verdicts"].values():
        if verdict["doubts"]:
            console.print(f"! {verdict['doubts']}", markup=False)
    console.print(f"{folder / 'report.html'}", markup=False, soft_wrap=True)


@mpl.rc_context(fname=STYLE)
def write_page(folders: dict[str, Path], out: Path, prices: Prices, refresh: int = 0) -> list[dict[str, str]]:
    """`report.html`, its tables as `report.md`, and its numbers as `results.json`; returns the headline.

    refresh: seconds after which a browser reads the page again; 0: never.
    """
    results = gather.gather(folders, prices)
    results |= {"headline": gather.headline(results), "verdicts": verdicts(results)}
    names = {fingerprint: name for name, fingerprint in results["run"]["fingerprints"].items()}
    logs = {name: folder / "metrics.jsonl" for name, folder in folders.items()}
    metrics = {name: gather.read_lines(log) for name, log in logs.items() if log.is_file()}
    shown = {
        "name": next(iter(folders.values())).absolute().parent.name,
        "results": defaultdict(lambda: None, results),
        "metrics": defaultdict(list, metrics),
        "plots": plots,
        "histograms": census.histograms,
        "samples": defaultdict(list, {name: gather.samples(folder) for name, folder in folders.items()}),
        "commands": results["run"]["commands"],
        "places": folders,
        "lineage": {name: _made_from(folder, names) for name, folder in folders.items()},
        "refresh": refresh,
        "gather": gather,
        "assumptions": cost,
    }
    write(out, results, {f"report.{kind}": template(f"page.{kind}").render(shown) for kind in ("md", "html")})
    return results["headline"]


def write(out: Path, numbers: Any, pages: Mapping[str, str]) -> None:
    """The pages, and what they show as `results.json`; a page that is looked at is never half a page."""
    numbers = json.dumps(numbers, indent=2, sort_keys=True) + "\n"
    for name, text in {"results.json": numbers, **pages}.items():
        write_whole(out / name, text)


def template(name: str) -> jinja2.Template:
    """A page of this folder: a name that is not given is an error, a text cannot break out of its place."""
    is_html = name.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=is_html,
        finalize=None if is_html else _cell,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "duration": duration, "energy": energy, "mass": mass}
    environment.filters |= {"shortened": census.shortened, "by_size": census.by_size}
    environment.filters["size"] = partial(decimal, precision=2)
    return environment.get_template(name)


def _cell(value: Any) -> str:
    """A value as a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _made_from(folder: Path, names: dict[str, str]) -> list[str]:
    """The artifacts of this run that one was made from, and inputs of other kinds by their name."""
    manifest = artifact.read_manifest(folder) or {"inputs": {}}
    found = [names.get(fingerprint, name) for name, fingerprint in manifest["inputs"].items()]
    return sorted(set(found), key=found.index)


def amount(thousands: float, unit: str) -> str:
    """Two digits of so many thousand of the unit: `2.5 kWh`, `70 Wh`."""
    return f"{thousands:.2g} k{unit}" if thousands >= 0.1 else f"{1000 * thousands:.2g} {unit}"


energy, mass = partial(amount, unit="Wh"), partial(amount, unit="g")
