"""The shipped recipes on the GPUs they are for, compiled without one: what each program takes.

python benchmarks/gpu_plans.py [NAME …]     in an environment with JAX's CUDA plugin: pip install -e '.[cuda]'

writes benchmarks/results/gpu_plans.json; with names those rows alone. tests/plan/test_gpu_plans.py holds it
to the recipes as they are now. The settings are those that `jaxtrain plan --sweep` found, where recipes have
others for TPUs.
"""

import dataclasses
import hashlib
import json
import math
import re
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"
RESULT = Path(__file__).parent / "results" / "gpu_plans.json"
ROWS: dict[str, tuple[str, str, list[str]]] = {
    "gpt2_124m": ("gpt2_124m/1_pretrain.py", "h100:1", []),
    "gpt_1b": ("gpt_1b/1_pretrain.py", "h100:8", ["--train.remat", "none", "--train.microbatches", "4"]),
    "llama3_8b, 8": ("llama3_8b/1_pretrain.py", "h100:8", ["--train.microbatches", "8"]),
    "llama3_8b, 64": (
        "llama3_8b/1_pretrain.py",
        "h100:64",
        ["--train.remat", "dots", "--train.microbatches", "4"],
    ),
    "qwen3_moe, 64": (
        "qwen3_moe/1_pretrain.py",
        "h100:64",
        ["--train.mesh.expert", "1", "--train.microbatches", "2"],
    ),
    "gsm8k_grpo": ("gsm8k_grpo/1_grpo.py", "h100:1", []),
}


def config_of(name: str) -> Any:
    from jaxtrain import config as configs

    file, _, settings = ROWS[name]
    return configs.override(configs.load(CONFIGS / file), settings)


def digest(config: Any) -> str:
    """Of what the recipe says: fields that it leaves alone may come and go."""
    from jaxtrain import config as configs

    def said(one: Any) -> Any:
        found = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
        unset = {field.name: field.default for field in dataclasses.fields(one)}
        return {
            name: said(value) if dataclasses.is_dataclass(value) else configs.to_json(value)
            for name, value in found.items()
            if value != unset[name]
        }

    text = json.dumps(said(config), sort_keys=True).replace(str(CONFIGS.parent), "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def row(name: str) -> dict[str, Any]:
    """What the compiled programs of a recipe say; FLOPs, bytes and arrays of one device."""
    from jaxtrain.plan import bill, compiler, hardware, hlo, search
    from jaxtrain.plan.work import shape_of

    file, chips, settings = ROWS[name]
    topology = hardware.parse(chips)
    compiler.environment(topology)
    config = config_of(name)
    asked = search.measured(config, shape_of(config, (CONFIGS / file).parent), topology)
    made = search.compiled(asked)
    found = bill.described(made, "", [])
    model, step = made.work.model, made.step
    with compiler.set_mesh(made.mesh):
        text = compiler.compiled(step.program).text
    shapes = {tuple(int(n) for n in dims.split(",") if n) for _, dims in hlo.ARRAY.findall(text)}
    pair, rows = (made.work.length,) * 2, step.program.rows // found["devices"] // config.train.microbatches
    scores = [s for s in shapes if s[-2:] == pair and math.prod(s[:-2]) == max(1, rows) * model.heads]
    targets = Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    return {
        "command": " ".join(["jaxtrain plan", f"configs/{file}", "--topology", chips, *settings]),
        "config": digest(config),
        "mesh": found["mesh"],
        "remat": model.remat,
        "flops_over_model": round(found["step"]["recompute"], 3),
        "peak_share": round(found["memory"]["total"] / found["memory"]["has"], 3),
        "all_pairs": bool(scores),
        "kernels": {name: n for name, n in sorted(targets.items()) if not hlo.FREE.search(name)},
        "collectives": {
            f"{one['kind']} over {', '.join(one['axes'])}": {"times": one["count"], "bytes": one["sent"]}
            for one in found["programs"][-1]["traffic"]
        },
        "step_seconds": [round(x, 2) for x in dataclasses.astuple(made.seconds)],
        "compile_seconds": found["compile_seconds"],
        "versions": {name: version(name) for name in ("jax", "jaxlib")},
    }


def table(found: dict[str, Any]) -> str:
    """The rows as they stand in docs/plan.md."""
    lines = [
        "| `jaxtrain plan …` | FLOPs over the model's count | memory | attention | expected step |",
        "|---|---|---|---|---|",
    ]
    for row in found.values():
        command = row["command"].removeprefix("jaxtrain plan ")
        kernel = "cuDNN" if any("fmha" in name for name in row["kernels"]) else "blocks"
        low, value, high = row["step_seconds"]
        share, flops = f"{row['peak_share']:.0%}", f"{row['flops_over_model']:.2f}, remat {row['remat']}"
        lines.append(f"| `{command}` | {flops} | {share} | {kernel} | {value} s ({low} to {high}) |")
    return "\n".join(lines)


def main() -> None:
    names = sys.argv[1:] or list(ROWS)
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in names:
        found[name] = row(name)
        print(name, json.dumps(found[name], indent=1), flush=True)
        RESULT.write_text(json.dumps({name: found[name] for name in ROWS if name in found}, indent=1) + "\n")
    print(table(json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
