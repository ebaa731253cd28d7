"""The numbers of a run, read from its artifacts. Nothing is measured here, and nothing is filled in."""

import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from statistics import median
from typing import Any

import jax

import jaxtrain
from jaxtrain import artifact
from jaxtrain.runtime import cost
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import utility

STAGES = {
    "collect": "collect",
    "clean": "clean",
    "tokenize": "tokenize",
    "pretrain": "pretrain",
    "finetune": "finetune",
    "rate": "rate",
    "reward": "align",
    "ppo": "align",
    "evaluate": "evaluate",
}
"""Each input of the report, in the order data flows, and the stage that writes it."""
ON_ACCELERATOR = {"pretrain", "finetune", "rate", "reward", "ppo", "evaluate"}
Line = dict[str, Any]
Results = dict[str, Any]


def require(folders: Mapping[str, Path]) -> dict[str, artifact.Counts]:
    """The manifests of the artifacts; UserError where one is missing or of another run."""
    manifests = {name: artifact.require(folder, STAGES[name]) for name, folder in folders.items()}
    for name, count in (("reward", "heldout_accuracy"), ("ppo", "utility_after")):
        if count not in manifests[name]["counts"]:
            raise UserError(f"{folders[name]} is no {name} artifact: its manifest counts no {count!r}")
    names = list(STAGES)
    for before, after in zip(names, names[1:], strict=False):
        if manifests[before]["fingerprint"] not in manifests[after]["inputs"].values():
            raise UserError(
                f"{folders[after]} was not made from {folders[before]} as it stands; "
                "run the recipe again (`jaxtrain run FOLDER`), it makes what is out of date"
            )
    return manifests


def read_json(path: Path) -> Any:
    """The JSON file at `path`; UserError where it is missing or broken."""
    return _parse(path, _read(path))


def read_lines(path: Path) -> list[Line]:
    """The objects of a `.jsonl` file."""
    return [_parse(path, line) for line in _read(path).split("\n") if line]  # text may hold other line ends


def gather(folders: Mapping[str, Path]) -> Results:
    """Every number on the page, by section. Energy in kWh, carbon in kg CO2e."""
    manifests = require(folders)
    counts = {name: manifest["counts"] for name, manifest in manifests.items()}
    evaluated = read_json(folders["evaluate"] / "results.json")
    try:
        return {
            "funnel": read_json(folders["clean"] / "funnel.json"),
            "unread": read_json(folders["collect"] / "unread.json"),
            "tokenizer": counts["tokenize"],
            "pretrain": _pretrain(manifests["pretrain"], read_lines(folders["pretrain"] / "metrics.jsonl")),
            "finetune": _finetune(read_lines(folders["finetune"] / "metrics.jsonl")),
            "rate": counts["rate"]
            | {"description": utility.DESCRIPTION if counts["rate"]["simulated"] else ""},
            "reward": counts["reward"],
            "ppo": counts["ppo"],
            "benchmarks": evaluated["tasks"],
            "heldout": evaluated["heldout"],
            "cost": _cost(
                {name: read_json(folder / artifact.COST)["seconds"] for name, folder in folders.items()}
            ),
            "run": {
                "versions": {
                    "jaxtrain": jaxtrain.__version__,
                    "jax": jax.__version__,
                    "python": platform.python_version(),
                },
                "fingerprints": {name: manifest["fingerprint"] for name, manifest in manifests.items()},
            },
        }
    except KeyError as missing:
        raise UserError(f"an artifact of this run lacks {missing}; run the recipe again") from missing


def funnel_total(funnel: Mapping[str, Line]) -> Line:
    """The counts of all sources together; of `dropped` in order of size."""
    dropped: Counter[str] = Counter()
    for counts in funnel.values():
        dropped.update(counts["dropped"])
    numbers = ("in", "kept", "heldout", "bytes_in", "bytes_kept", "bytes_heldout")
    return {name: sum(counts[name] for counts in funnel.values()) for name in numbers} | {
        "dropped": dict(dropped.most_common())
    }


def benchmark_table(benchmarks: list[Line]) -> list[Line]:
    """A row a task: `task`, `metric`, `chance`, `items`, `shots`, `version`, and `models` {name: its row}."""
    rows: dict[str, Line] = {}
    for row in benchmarks:
        rows.setdefault(row["task"], {**row, "models": {}})["models"][row["model"]] = row
    return list(rows.values())


def models(rows: list[Line]) -> list[str]:
    """The models that `rows` are about, in the order in which they were trained."""
    return list(dict.fromkeys(row["model"] for row in rows))


def headline(results: Results) -> list[dict[str, str]]:
    """The rows on top of the page and on the terminal: `measure`, `value`, what to read it `beside`."""
    total = next((row for row in results["heldout"] if row["source"] == "all"), None)
    if total is None:
        raise UserError("evaluate's results.json has no held-out row of all sources; run evaluate again")
    reward, ppo = results["reward"], results["ppo"]
    rows = [
        {
            "measure": f"Held-out text, bits per byte of the {total['model']} model (lower is better)",
            "value": f"{total['bits_per_byte']:.3f}",
            "beside": f"xz -9e on the same {total['bytes']:,} bytes: {total['xz_bits_per_byte']:.3f}",
        },
        {
            "measure": f"Reward model on held-out comparisons of {raters(results)}",
            "value": share(reward["heldout_accuracy"], reward["standard_error"]),
            "beside": f"untrained {share(reward['untrained_accuracy'])}, longer answer wins "
            f"{share(reward['length_accuracy'])}, ceiling {share(reward['ceiling'])}",
        },
        {
            "measure": "Reward model on held-out comparisons of people",
            "value": share(reward["human_accuracy"], reward["human_standard_error"]),
            "beside": "chance 50.0 %",
        },
        {
            "measure": f"PPO: true utility to {raters(results)}",
            "value": f"{ppo['utility_gain_sd']:+.2f} SD",
            "beside": f"from {ppo['utility_before']:.3f} to {ppo['utility_after']:.3f}, "
            f"in SD ({ppo['utility_sd_before']:.3f}) of the fine-tuned model's answers; "
            f"KL {ppo['kl']:.2f} nats a sequence",
        },
    ]
    for task in benchmark_table(results["benchmarks"]):
        values = [(name, share(row["value"], row["standard_error"])) for name, row in task["models"].items()]
        name, value = values[-1]
        others = "".join(f", {other} {text}" for other, text in values[:-1])
        rows.append(
            {
                "measure": f"{task['task']} ({name})",
                "value": value,
                "beside": f"chance {share(task['chance'])}{others}",
            }
        )
    return rows


def raters(results: Results) -> str:
    """Who ranked the answers; simulated raters are never called anything else."""
    return "simulated raters" if results["rate"]["simulated"] else "raters"


def share(value: float, error: float | None = None) -> str:
    """`0.781` as `78.1 %`, with one standard error behind it where given."""
    return f"{100 * value:.1f} %" if error is None else f"{100 * value:.1f} ± {100 * error:.1f} %"


def samples(folder: Path) -> list[dict[str, str | int]]:
    """What a model wrote for each prompt of `samples.jsonl`, at the `first` step there and the `last`."""
    by_prompt: dict[str, list[Line]] = {}
    for line in read_lines(folder / "samples.jsonl"):
        by_prompt.setdefault(line["prompt"], []).append(line)
    return [
        {
            "prompt": prompt,
            "first": lines[0]["completion"],
            "first_step": lines[0]["step"],
            "last": lines[-1]["completion"],
            "last_step": lines[-1]["step"],
        }
        for prompt, lines in by_prompt.items()
    ]


def steps(lines: list[Line]) -> list[Line]:
    """The training steps among the lines of metrics.jsonl."""
    return [line for line in lines if "kind" not in line]


def heldout(lines: list[Line]) -> list[Line]:
    """The evaluations among the lines of metrics.jsonl."""
    return [line for line in lines if line.get("kind") == "heldout"]


def _pretrain(manifest: Line, lines: list[Line]) -> Line:
    model, trained = manifest["config"]["model"], steps(lines)
    speeds = [line["targets"] / line["seconds"] for line in trained[1:]]  # the first step compiles
    if not speeds:
        raise UserError("pretrain's metrics.jsonl has fewer than two steps: nothing to report")
    matmul = manifest["counts"]["matmul_parameters"]
    width = model["heads"] * model["head_dim"]
    flops = cost.flops_per_token(matmul, model["layers"], model["max_length"], width)
    return {
        "steps": len(trained),
        "tokens": manifest["counts"]["tokens"],
        "parameters": matmul + model["vocab_size"] * model["d_model"],
        "matmul_parameters": matmul,
        "tokens_per_second": median(speeds),
        "flops_per_token": flops,
        "flops_per_second": flops * median(speeds),
        "refused": sum(line["accepted"] == 0 for line in trained),
        "loss": trained[-1]["loss"],
        "heldout": heldout(lines)[-1] if heldout(lines) else None,
    }


def _finetune(lines: list[Line]) -> Line:
    evaluated = heldout(lines)
    return {
        "steps": len(steps(lines)),
        "loss": steps(lines)[-1]["loss"],
        "heldout_loss": evaluated[-1]["loss"] if evaluated else None,
    }


def _cost(seconds: dict[str, float]) -> Line:
    """Of each stage and of all, if this machine is the one that ran them."""
    devices, cores = jax.devices(), cost.cores()
    each = cost.device_watts(devices[0].device_kind)
    host = cost.CORE_WATTS * cores
    stages = {}
    for name, spent in seconds.items():
        watts = host if name not in ON_ACCELERATOR else None if each is None else host + each * len(devices)
        stages[name] = {"seconds": spent, "kilowatt_hours": watts and cost.kilowatt_hours(spent, watts)}
    energies = [stage["kilowatt_hours"] for stage in stages.values()]
    energy = None if None in energies else reduce(cost.Range.__add__, energies)
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "cores": cores,
        "stages": {
            name: {**stage, "kilowatt_hours": _asdict(stage["kilowatt_hours"])}
            for name, stage in stages.items()
        },
        "seconds": sum(seconds.values()),
        "kilowatt_hours": _asdict(energy),
        "kilograms": _asdict(energy and cost.kilograms(energy)),
    }


def _asdict(figure: cost.Range | None) -> dict[str, float] | None:
    return None if figure is None else asdict(figure)


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is missing; run its stage again")
    return path.read_text(encoding="utf-8")


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not readable JSON ({error}); run its stage again") from error
