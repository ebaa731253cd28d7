"""ReportConfig and run(): one page of a whole run; show() prints its table."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from jaxtrain import artifact
from jaxtrain.report import gather, plots
from jaxtrain.runtime import cost

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The finished artifacts of one run, and where its report goes."""

    collect: str
    """Folder of the collect artifact."""
    clean: str
    """Folder of the clean artifact."""
    tokenize: str
    """Folder of the tokenize artifact."""
    pretrain: str
    """Folder of the pretrain artifact."""
    finetune: str
    """Folder of the finetune artifact."""
    rate: str
    """Folder of the rate artifact."""
    reward: str
    """Folder of align's reward model."""
    ppo: str
    """Folder of align's PPO artifact."""
    evaluate: str
    """Folder of the evaluate artifact."""
    out: str
    """Folder to write."""


configs: tuple[type, ...] = (ReportConfig,)


def run(config: ReportConfig) -> Path:
    """Write `report.html` and `results.json`; UserError where an artifact is missing or of another run."""
    folders = {name: Path(getattr(config, name)) for name in gather.STAGES}
    gather.require(folders)
    return artifact.produce(config, {**folders, "page": TEMPLATE}, lambda out: _write(folders, out))


def show(folder: Path) -> None:
    """Print the results of a report artifact as a table to stdout, and where the page is."""
    results = gather.read_json(folder / "results.json")
    table = Table(title="results", title_justify="left")
    for column, justify in (("measure", "left"), ("value", "right"), ("beside", "left")):
        table.add_column(column, justify=justify)
    for row in results["headline"]:
        table.add_row(row["measure"], row["value"], row["beside"])
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{folder / 'report.html'}", markup=False, soft_wrap=True)


def _write(folders: dict[str, Path], out: Path) -> artifact.Counts:
    results = gather.gather(folders)
    results["headline"] = gather.headline(results)
    (out / "results.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    page = render(results, _figures(folders, results), _samples(folders), _commands(folders))
    (out / "report.html").write_text(page, encoding="utf-8")
    return {"headline": results["headline"]}


def render(
    results: gather.Results, figures: dict[str, str], samples: dict[str, Any], commands: dict[str, str]
) -> str:
    """The page. figures: SVG by name, put in as they are; every other text is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": gather.share, "duration": duration, "energy": energy, "mass": mass}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        results=results,
        figures={name: Markup(svg) for name, svg in figures.items()},
        samples=samples,
        commands=commands,
        raters=gather.raters(results),
        benchmarks=gather.benchmark_table(results["benchmarks"]),
        models=gather.models(results["benchmarks"]),
        total=gather.funnel_total(results["funnel"]),
        heldout_models=gather.models(results["heldout"]),
        assumptions=cost,
    )


def duration(seconds: float) -> str:
    """`7.2 s`, `4 min 10 s`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def energy(kilowatt_hours: float) -> str:
    """Two digits, in Wh below a tenth of a kWh."""
    return f"{kilowatt_hours:.2g} kWh" if kilowatt_hours >= 0.1 else f"{1000 * kilowatt_hours:.2g} Wh"


def mass(kilograms: float) -> str:
    """Two digits, in g below a tenth of a kg."""
    return f"{kilograms:.2g} kg" if kilograms >= 0.1 else f"{1000 * kilograms:.2g} g"


def _figures(folders: dict[str, Path], results: gather.Results) -> dict[str, str]:
    metrics = {
        name: gather.read_lines(folders[name] / "metrics.jsonl") for name in ("pretrain", "finetune", "ppo")
    }
    return {
        "funnel": plots.funnel(results["funnel"]),
        "pretrain": plots.pretraining(metrics["pretrain"]),
        "finetune": plots.finetuning(metrics["finetune"]),
        "ppo": plots.reward_against_kl(metrics["ppo"], results["ppo"]),
        "benchmarks": plots.benchmarks(gather.benchmark_table(results["benchmarks"])),
    }


def _samples(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: gather.samples(folders[name]) for name in ("pretrain", "finetune", "ppo")}


def _commands(folders: dict[str, Path]) -> dict[str, str]:
    """The command of each artifact: `runs/<recipe>/<name>` is written by `configs/<recipe>/<name>.py`."""
    commands = {}
    for name, folder in folders.items():
        kept_by_convention = len(folder.parts) >= 3 and folder.parts[-3] == "runs"
        config = f"configs/{folder.parts[-2]}/{folder.parts[-1]}.py" if kept_by_convention else "CONFIG"
        commands[name] = f"jaxtrain {gather.STAGES[name]} {config}"
    return commands
