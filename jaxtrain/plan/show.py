"""A plan as text."""

from typing import Any

from jaxtrain.runtime.cost import Range

GIB = 2**30


def text(found: dict[str, Any]) -> str:
    parts = [_setting(found), *(_program(one, found) for one in found["programs"]), _step(found)]
    if found["run"]:
        parts.append(_run(found))
    if found["sweep"]:
        parts.append(_sweep(found["sweep"]))
    return "\n\n".join([*parts, _inputs(found["inputs"])])


def _program(one: dict[str, Any], found: dict[str, Any]) -> str:
    rows = f"{one['name'].capitalize()}, {one['rows']:,} rows of {found['length']:,} tokens a call"
    return "\n".join([rows, _memory(one["memory"], found), _traffic(one, found["compiled"]), _time(one)])


def _setting(found: dict[str, Any]) -> str:
    model = found["model"]
    lines = []
    if found["asked_for_does_not_fit"]:
        changed = "; ".join(found["changes"]) or f"topology {found['topology']}"
        lines.append(f"What was asked for does not fit: {found['asked_for_does_not_fit']}.")
        lines.append(f"The nearest that does: {changed} on {found['topology']}. Of that:")
    how = f"compiled in {found['compile_seconds']:.0f} s" if found["compiled"] else "by formula, not compiled"
    if found["not_compiled_for_want_of"]:
        how += f"; that needs {found['not_compiled_for_want_of']}"
    lines += [
        f"{found['topology']}: {found['devices']} devices, mesh {found['mesh']} ({how})",
        f"{model['matmul_parameters'] / 1e9:.3g} billion matmul weights, {model['layers']} layers, rows of "
        f"{found['length']:,} tokens, {found['rows']:,} a step in {found['microbatches']} "
        f"micro-batches, remat {model['remat']}, {model['dtype']}",
    ]
    return "\n".join(lines)


def _memory(memory: dict[str, Any], found: dict[str, Any]) -> str:
    rows = [
        ("weights", memory["weights"], "exact"),
        ("optimizer", memory["optimizer"], "exact"),
        ("rows, guard", memory["batch"], "exact"),
        ("beside it: what else stands in memory", memory["beside"], "exact"),
    ]
    if memory["peak"] is None:
        rows += [("kept for backward, or keys and values", memory["kept"], "exact, one micro-batch")]
        rows += [("gradients, loss, a layer at work", memory["working"], "estimate")]
    else:
        used = memory["peak"] - memory["arguments"]
        rows += [
            ("activations and temporaries", used, "compiler, at the fullest moment"),
            ("  of these kept", memory["kept"], "by shapes, one micro-batch"),
            ("program", memory["code"], "compiler"),
        ]
    share = memory["total"] / found["memory"]["has"]
    rows += [("together", memory["total"], f"{share:.0%} of {found['memory']['has'] / GIB:.4g} GiB")]
    shown = [(name, f"{size / GIB:.3f} GiB", how) for name, size, how in rows if size]
    return "  memory of a device\n" + _table(shown)


def _traffic(one: dict[str, Any], compiled: bool) -> str:
    how = "read from the program" if compiled else "by formula"
    rows = [("collective", "axes", "devices", "times", "bytes", "sent by a device")]
    for sent in one["traffic"]:
        axes = ", ".join(sent["axes"]) or "(no line of the mesh)"
        sizes = (f"{sent['size'] / 1e9:.3f} GB", f"{sent['sent'] / 1e9:.3f} GB")
        rows.append((sent["kind"], axes, str(sent["devices"]), str(sent["count"]), *sizes))
    return f"  what travels ({how})\n" + (_table(rows) if len(rows) > 1 else "    nothing")


def _time(one: dict[str, Any]) -> str:
    rows = [
        ("arithmetic at its peak", _seconds(one["compute"]), ""),
        ("memory at its peak", _seconds(one["bandwidth"]), ""),
        ("links at their peak", _seconds(one["links"]), ""),
        ("expected", _span(one["seconds_a_call"], _seconds), f"bound by {one['bound']}"),
        ("calls a step of the optimizer", _span(one["calls"], _round), f"{one['share']:.0%} of the time"),
    ]
    return "  time of a call\n" + _table(rows)


def _step(found: dict[str, Any]) -> str:
    step = found["step"]
    rows = [
        ("expected", _span(step["seconds"], _seconds), ""),
        ("tokens a second", _span(step["tokens_per_second"], _round), ""),
        ("  of a device", _span(step["tokens_per_second_per_device"], _round), ""),
        (
            "MFU of the step",
            _span(step["mfu"], lambda x: f"{x:.1%}"),
            f"{step['flops_per_token']:.3e} FLOP a token",
        ),
        (
            "FLOPs over those that count",
            f"{step['recompute']:.3f}",
            "read from the program" if found["compiled"] else f"remat {found['model']['remat']}",
        ),
    ]
    return "From one step of the optimizer to the next\n" + _table(rows)


def _run(found: dict[str, Any]) -> str:
    run = found["run"]
    rows = [
        ("tokens", f"{run['tokens']:.3e}", f"{found['steps']:,} steps"),
        ("days", _span(run["days"], lambda x: f"{x:.3g}"), ""),
        ("chip hours", _span(run["chip_hours"], _round), ""),
        ("dollars", _span(run["dollars"], _round) if run["dollars"] else "no price known: --price", ""),
        ("kWh", _span(run["kWh"], _round), "watts x hours x PUE"),
        ("kg CO2e", _span(run["kgCO2e"], _round), "kWh x grid"),
    ]
    return "The whole run (expected, and from best to worst)\n" + _table(rows)


def _sweep(rows: list[dict[str, Any]]) -> str:
    lines = [("mesh", "fits", "memory", "step", "links", "bound")]
    for one in rows:
        sizes = (f"{one['memory'] / GIB:.1f} GiB", _seconds(one["seconds"]), _seconds(one["links"]))
        lines.append((one["mesh"], "yes" if one["fits"] else "no", *sizes, one["bound"]))
    return "Meshes by formula, the best first\n" + _table(lines)


def _inputs(inputs: dict[str, Any]) -> str:
    rows = [(name.replace("_", " "), _value(value)) for name, value in inputs.items() if name != "sources"]
    return "Inputs\n" + _table(rows) + f"\n  sources: {inputs['sources']}"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _span(figure: Range, form: Any) -> str:
    return f"{form(figure.value)} ({form(figure.low)} to {form(figure.high)})"


def _value(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, Range):
        return _span(value, lambda x: f"{x:.3g}")
    return f"{value:.4g}"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
