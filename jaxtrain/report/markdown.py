"""The tables of the page as Markdown, for a pull request, a model card or a diff."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtrain.report import census, gather

Results = Mapping[str, Any]


def markdown(results: Results) -> str:
    """The headline, then a table for every part of which there are numbers."""
    parts = [f"# A run of jaxtrain {results['run']['versions']['jaxtrain']}"]
    if results.get("rate", {}).get("simulated"):
        parts.append("Preferences are those of simulated raters; no person was asked.")
    add = parts.append
    add(_table(("measure", "value", "beside"), [tuple(row.values()) for row in results["headline"]]))
    if "funnel" in results:
        total = gather.funnel_total(results["funnel"])
        rows = [("in", total["in"]), *((f"dropped: {why}", n) for why, n in total["dropped"].items())]
        rows += [("held out", total["heldout"]), ("kept", total["kept"])]
        add("## Data\n\n" + _table(("records", "all sources"), rows))
    if "census" in results:
        parts += _census(results["census"])
    if results.get("heldout"):
        rows = [
            (row["model"], row["source"], f"{row['bits_per_byte']:.3f}", f"{row['xz_bits_per_byte']:.3f}")
            for row in results["heldout"]
        ]
        add("## Held-out text, bits per byte\n\n" + _table(("model", "source", "model", "xz -9e"), rows))
    if results.get("benchmarks"):
        rows = [
            (row["model"], row["task"], gather.share(row["value"], row["standard_error"]))
            + (gather.share(row["chance"]), row["items"], row["shots"], row["metric"], row["version"])
            for row in results["benchmarks"]
        ]
        heading = ("model", "task", "score", "chance", "items", "shots", "metric", "version")
        add("## Benchmarks\n\n" + _table(heading, rows))
    if results.get("extraction"):
        rows = [
            (row["model"], row["text"], "" if row["count"] is None else row["count"], row["prefix"])
            + (gather.share(row["rate"]), f"{gather.share(row['low'])} to {gather.share(row['high'])}")
            for row in results["extraction"]
        ]
        heading = ("model", "text", "copies", "tokens given", "extracted", "95 % interval")
        add("## Memorisation\n\n" + _table(heading, rows))
    if results.get("exposure"):
        rows = [(row["model"], row["count"], f"{row['exposure']:.2f}") for row in results["exposure"]]
        add(_table(("model", "copies", "exposure of canaries, bits"), rows))
    if results.get("bias"):
        rows = [
            (
                row["model"],
                row["measure"],
                row["group"],
                "" if row["value"] is None else gather.share(row["value"]),
            )
            + (f"{gather.share(row['low'])} to {gather.share(row['high'])}", row["items"])
            for row in results["bias"]
        ]
        heading = ("model", "measure", "group", "value", "95 % interval", "items")
        add("## Bias and safety\n\n" + _table(heading, rows))
    if results["cost"]:
        add("## Cost\n\n" + _cost(results["cost"]))
    return "\n\n".join(parts) + "\n"


def _census(found: Mapping[str, Any]) -> Iterable[str]:
    """Steps, signals, languages, topics and duplicates; an estimate of tokens has a `~`."""
    rows = [
        (row["step"], row["records"], row["bytes"])
        + ("" if row["tokens"] is None else f"{'' if row['exact'] else '~'}{row['tokens']}",)
        for row in found["steps"]
    ]
    yield "### Step by step\n\n" + _table(("what is left", "records", "bytes", "tokens"), rows)
    rows = [
        (signal, source, *(census.spread(found["bins"][signal], of[signal][when]) for when in census.WHEN))
        for signal in found["shown"]
        for source, of in found["signals"].items()
    ]
    yield "### Signals\n\n" + _table(("10 %, median, 90 % of", "source", "collected", "kept"), rows)
    for name, labels in (("Languages", found["languages"]), *found["topics"].items()):
        rows = [tuple(row.values()) for row in census.shortened(labels)]
        yield f"### {name}\n\n" + _table(("", "collected", "bytes", "kept", "bytes"), rows)
    rows = [
        (of["kind"], of["reason"], of["copies"], ", ".join(f"{n} of {size}" for size, n in sizes))
        for of in found["copies"]
        for sizes in (census.by_size(of["sizes"]),)
    ]
    heading = ("kind", "reason", "copies removed", "clusters of records")
    yield "### Duplicates\n\n" + (_table(heading, rows) if rows else "None were found.")


def _cost(cost: Mapping[str, Any]) -> str:
    """Estimated and measured energy apart."""
    money = "no price stated" if cost["money"] is None else f"{cost['money']:.2f} {cost['currency']}"
    rows = [
        ("seconds", f"{cost['seconds']:.0f}"),
        ("restarts", f"{cost['restarts']}"),
        ("device-hours", f"{cost['device_hours']:.2f}"),
        ("money", money),
        ("energy, estimate", _range(cost["kilowatt_hours"], "kWh")),
        ("carbon, estimate", _range(cost["kilograms"], "kg CO2e")),
        *((f"energy, measured ({kind})", f"{value:.4g} kWh") for kind, value in cost["measured"].items()),
    ]
    return _table(("cost", f"on {cost['devices']} x {cost['device']}"), rows)


def _range(figure: Mapping[str, float] | None, unit: str) -> str:
    if figure is None:
        return "not known"
    return f"{figure['value']:.2g} {unit} ({figure['low']:.2g} to {figure['high']:.2g})"


def _table(heading: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
