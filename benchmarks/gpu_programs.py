"""What XLA makes of the shipped GPU configs for GPUs that are not there: FLOPs, memory, kernels, traffic.

python benchmarks/gpu_programs.py [NAME …]   in an environment with jax[cuda13]; no GPU is needed

A config is compiled for each of its topologies and takes half a minute to some minutes. What is read goes to
benchmarks/results/gpu_programs.json, from which tests hold `jaxtrain plan` to it; NAME renews the entries of
one folder of configs. `source` is the hash of the config's code: a test fails when a config is newer.
"""

import ast
import dataclasses
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from record import RESULTS, record

from jaxtrain import config as configs
from jaxtrain.plan import compiler, search
from jaxtrain.plan.hardware import parse
from jaxtrain.plan.work import shape_of

ROOT = Path(__file__).parents[1]
PROGRAMS = (
    ("gpt2_124m/1_pretrain.py", "h100:1", ()),
    ("gpt_1b/1_pretrain.py", "h100:8", ()),
    ("llama3_8b/1_pretrain.py", "h100:8", ("--train.microbatches", "64")),
    ("llama3_8b/1_pretrain.py", "h100:64", ()),
    ("qwen3_moe/1_pretrain.py", "h100:64", ()),
    ("gsm8k_grpo/1_grpo.py", "h100:1", ()),
)
"""Config, topology and what is changed for it on the command line."""


def source(path: Path) -> str:
    """Hash of a config's code, its comments and docstring left out."""
    body = [part for part in ast.parse(path.read_text()).body if not isinstance(part, ast.Expr)]
    return hashlib.sha256("".join(map(ast.dump, body)).encode()).hexdigest()[:16]


def read(name: str, topology: str, flags: tuple[str, ...]) -> dict[str, Any]:
    """One entry."""
    path = ROOT / "configs" / name
    config = configs.override(configs.load(path), list(flags))
    asked = search.measured(config, shape_of(config, path.parent), parse(topology))
    found = search.compiled(asked, fits=False)
    programs = {}
    for part in found.parts:
        assert part.compiled is not None
        targets = re.findall(r'custom_call_target="([^"]+)"', part.compiled.text)
        programs[part.program.name] = {
            "flops": part.compiled.flops,
            "flops_of_the_model": part.time.counted,
            "peak": part.memory.total,
            "peak_by_formula": part.program.memory.total,
            # the dense kernel alone makes the scores of all pairs of tokens, in the einsum of this name
            "scores_of_all_pairs": part.compiled.text.count("->bkgts"),
            "custom_calls": dict(sorted(Counter(targets).items())),
            "traffic": [dataclasses.asdict(one) for one in part.traffic],
        }
    return {
        "config": name,
        "topology": topology,
        "flags": list(flags),
        "source": source(path),
        "memory": found.topology.chip.memory,
        "remat": found.work.model.remat,
        "compile_seconds": round(found.compile_seconds, 1),
        "programs": programs,
    }


def main() -> None:
    compiler.environment(parse("h100:1"))
    kept = RESULTS / "gpu_programs.json"
    entries = json.loads(kept.read_text())["entries"] if kept.is_file() else []
    for program in PROGRAMS:
        if sys.argv[1:] and program[0].split("/")[0] not in sys.argv[1:]:
            continue
        made = read(*program)
        print(json.dumps(made, indent=1), flush=True)
        entries = [one for one in entries if (one["config"], one["topology"]) != program[:2]] + [made]
        record("gpu_programs", ["jax", "jax-cuda13-plugin", "nvidia-cudnn-cu13"], {"entries": entries})


if __name__ == "__main__":
    main()
