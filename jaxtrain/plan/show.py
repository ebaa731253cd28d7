"""A plan as text."""

from typing import Any

GIB = 2**30


def out(text: str) -> None:
    """To stdout: it is the result."""
    import sys

    sys.stdout.write(text + "\n")


def text(found: dict[str, Any]) -> str:
    parts = [_setting(found), _memory(found), _traffic(found), _step(found), _run(found)]
    if found["sweep"]:
        parts.append(_sweep(found["sweep"]))
    return "\n\n".join([*parts, _inputs(found["inputs"]), _check(found["check"]), _known(found["known"])])


def _setting(found: dict[str, Any]) -> str:
    model = found["model"]
    lines = []
    if found["asked_for_does_not_fit"]:
        changed = "; ".join(found["changes"]) or f"topology {found['topology']}"
        lines.append(f"What was asked for does not fit: {found['asked_for_does_not_fit']}.")
        lines.append(f"The nearest that does: {changed} on {found['topology']}. Of that:")
    how = f"compiled in {found['compile_seconds']:.0f} s" if found["compiled"] else "by formula, not compiled"
    lines += [
        f"{found['topology']}: {found['devices']} devices, mesh {found['mesh']} ({how})",
        f"{model['matmul_parameters'] / 1e9:.3g} billion matmul weights, {model['layers']} layers, rows of "
        f"{model['length']:,} tokens, {found['batch_size']:,} a step in {found['microbatches']} "
        f"micro-batches, remat {model['remat']}, {model['dtype']}",
    ]
    return "\n".join(lines)


def _memory(found: dict[str, Any]) -> str:
    memory = found["memory"]
    rows = [
        ("weights", memory["weights"], "exact"),
        ("optimizer", memory["optimizer"], "exact"),
        ("batch, guard", memory["batch"], "exact"),
    ]
    if memory["peak"] is None:
        rows += [("kept for backward", memory["kept"], "exact, one micro-batch")]
        rows += [("gradients, loss, a layer at work", memory["working"], "estimate")]
    else:
        state = memory["weights"] + memory["optimizer"] + memory["batch"]
        used = memory["peak"] - memory["arguments"]
        rows += [
            ("activations and temporaries", used, "compiler, at the fullest moment"),
            ("  of these kept for backward", memory["kept"], "by shapes, one micro-batch"),
            ("program", memory["code"], "compiler"),
            (
                "(first three, by the compiler)",
                memory["arguments"],
                f"{memory['arguments'] - state:+,} bytes",
            ),
        ]
    rows += [("together", memory["total"], f"of {memory['has'] / GIB:.4g} GiB")]
    return "Memory of a device\n" + _table([(name, f"{size / GIB:.3f} GiB", how) for name, size, how in rows])


def _traffic(found: dict[str, Any]) -> str:
    how = "read from the program" if found["compiled"] else "by formula"
    rows = [("collective", "axes", "devices", "times", "bytes", "sent by a device")]
    for one in found["traffic"]:
        axes = ", ".join(one["axes"]) or "(no line of the mesh)"
        sizes = (f"{one['size'] / 1e9:.3f} GB", f"{one['sent'] / 1e9:.3f} GB")
        rows.append((one["kind"], axes, str(one["devices"]), str(one["count"]), *sizes))
    return f"What travels in a step ({how})\n" + (_table(rows) if len(rows) > 1 else "  nothing")


def _step(found: dict[str, Any]) -> str:
    step = found["step"]
    rows = [
        (
            "arithmetic at its peak",
            _seconds(step["compute"]),
            f"{step['recompute']:.2f} x the FLOPs that count",
        ),
        ("memory at its peak", _seconds(step["memory"]), ""),
        ("links at their peak", _seconds(step["links"]), ""),
        ("expected step", _span(step["seconds"], _seconds), f"bound by {step['bound']}"),
        ("tokens a second", _span(step["tokens_per_second"], _round), ""),
        ("  of a device", _span(step["tokens_per_second_per_device"], _round), ""),
        ("MFU", _span(step["mfu"], lambda x: f"{x:.1%}"), f"{step['flops_per_token']:.3e} FLOP a token"),
    ]
    return "Time of a step\n" + _table(rows)


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


def _check(rows: list[dict[str, Any]]) -> str:
    lines = [("published", "chip", "MFU", "predicted", "error", "source")]
    for one in rows:
        shares = (f"{one['published']:.1%}", f"{one['predicted']:.1%}", f"{one['error']:+.0%}")
        lines.append((one["what"], one["chip"], *shares, one["source"]))
    return "Against published runs (each predicted from the others)\n" + _table(lines)


def _known(rows: list[dict[str, Any]]) -> str:
    lines = [("known figure", "formula", "ours", "published", "ratio")]
    for one in rows:
        ours, told = (f"{_round(one[name])} {one['unit']}" for name in ("ours", "published"))
        lines.append((one["what"], one["formula"], ours, told, f"{one['ratio']:.2f}"))
    return "Known figures by the same formulas\n" + _table(lines)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _span(values: list[float], form: Any) -> str:
    low, value, high = values
    return f"{form(value)} ({form(low)} to {form(high)})"


def _value(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return _span([value[0], value[1], value[2]], lambda x: f"{x:.3g}")
    return f"{value:.4g}"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
