"""The numbers of a run, read from its artifacts. Nothing is measured here, and nothing is filled in."""

import json
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import jax

import jaxtrain
from jaxtrain import artifact
from jaxtrain.integrity import read_json
from jaxtrain.manifest import flat
from jaxtrain.model.config import ModelConfig
from jaxtrain.report import census, costs, incident
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import read_object
from jaxtrain.runtime.progress import say
from jaxtrain.tasks import utility

MEASURED = ("languages", "positions", "aggregate", "core", "extraction", "exposure", "bias", "representation")
"""Parts of evaluate's results."""
Line = dict[str, Any]
Results = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A kind of artifact that the page knows."""

    stage: str
    """Whose command writes it."""
    read: Callable[[Path, Line, Line], Results]
    """Its numbers, from its folder, its manifest and its counts."""
    kind: str | None = ""
    """Class of its config, where a stage writes artifacts of several kinds; None: `find` knows by inputs."""
    on_accelerator: bool = True
    is_live: bool = False
    """Whether it has something to show while its stage is at work."""
    is_chained: bool = True
    """Whether it is made from the part before it, where a run has that."""


def find(run: Path) -> dict[str, Path]:
    """The artifacts of a run, or the one that the folder itself is, by name, in the order data flows.

    Of two of one part the later by name; a fine-tuning that the later goes on from is mid-training. One at
    work counts where none is finished.
    Errors: UserError where there is none.
    """
    if not run.is_dir():
        raise UserError(f"{run} is no folder; name one that holds artifacts, such as runs/quickstart")
    found: dict[str, Path] = {}
    for folder in [run, *sorted((path for path in run.iterdir() if path.is_dir()), key=_natural)]:
        name = None if artifact.is_aside(folder) else _part_of(folder)
        if name is None or (is_live(folder) and (not PARTS[name].is_live or name in found)):
            continue
        if name == "finetune" and name in found and _is_made_from(folder, found[name]):
            found["midtrain"] = found[name]
        elif name in found and not is_live(found[name]):
            say(f"{run} has two artifacts of {name}; {folder.name} is shown, {found[name].name} is not")
        found[name] = folder
    if not found:
        raise UserError(f"{run} holds no artifact; name a folder such as runs/quickstart")
    return {name: found[name] for name in PARTS if name in found}


def _is_made_from(after: Path, before: Path) -> bool:
    return _manifest(before)["fingerprint"] in _manifest(after)["inputs"].values()


def _natural(folder: Path) -> tuple[int, str]:
    """10_report behind 9_evaluate."""
    number = folder.name.split("_")[0]
    return (int(number) if number.isdigit() else 0, folder.name)


def _part_of(folder: Path) -> str | None:
    """What the page calls the artifact in `folder`; None for any other folder."""
    if not (folder / (artifact.STARTED if is_live(folder) else artifact.MANIFEST)).is_file():
        return None
    metrics = folder / "metrics.jsonl"
    if is_live(folder) and not (metrics.is_file() and len(of_kind(read_lines(metrics))) > 1):
        return None
    described = _manifest(folder)
    stage, kind = described["stage"], described["config"].get("class", "")
    return next((n for n, part in PARTS.items() if part.stage == stage and part.kind in ("", kind)), None)


def check_chain(folders: Mapping[str, Path]) -> None:
    """UserError where an artifact was not made from the one before it."""
    manifests = {name: _manifest(folder) for name, folder in folders.items() if PARTS[name].is_chained}
    for before, after in pairwise(manifests):
        # people may have rated answers of any model
        is_of_people = after == "rate" and "database" in manifests[after]["inputs"]
        if not is_of_people and not _is_made_from(folders[after], folders[before]):
            apart = f"{folders[after]} was not made from {folders[before]} as it stands"
            raise UserError(f"{apart}; `jaxtrain run FOLDER` makes what is out of date")


def gather(folders: Mapping[str, Path], prices: costs.Prices | None = None) -> Results:
    """Every number on the page, by section: one for every stage that is there, finished or at work.

    Energy in kWh, carbon in kg CO2e.
    """
    manifests = {name: _manifest(folder) for name, folder in folders.items()}
    live = [name for name, folder in folders.items() if is_live(folder)]
    versions = {"jaxtrain": jaxtrain.__version__, "jax": jax.__version__, "python": platform.python_version()}
    told = {name: read_json(folder / artifact.COST) or {} for name, folder in folders.items()}
    accelerated = {name for name, part in PARTS.items() if part.on_accelerator}
    results: Results = {
        "live": live,
        "cost": None if live else costs.gather(folders, accelerated, prices or costs.Prices()),
        "run": {
            "versions": versions,
            # of the newest artifact; a date is no part of what an artifact is made of
            "date": max(of.get("date", "") for of in told.values()),
            # of an older artifact its stage's
            "commands": {
                name: of.get("command", f"jaxtrain {PARTS[name].stage} CONFIG") for name, of in told.items()
            },
            "config": {name: _fields(made["config"]) for name, made in manifests.items()},
            "fingerprints": {name: made["fingerprint"] for name, made in manifests.items()},
        },
    }
    for name, folder in folders.items():
        try:
            found = PARTS[name].read(folder, manifests[name], manifests[name]["counts"])
        except KeyError as missing:
            raise UserError(f"{folder} lacks {missing}; run its stage again") from missing
        results.setdefault("trained", {}).update(found.pop("trained", {}))
        results |= found
    logs = {name: folder / "metrics.jsonl" for name, folder in folders.items()}
    lines = {name: read_lines(log) for name, log in logs.items() if log.is_file()}
    results["flags"] = {name: of_kind(of, "flag") for name, of in lines.items()}
    results["refused"] = {name: _refused(folders[name], of) for name, of in lines.items()}
    if "census" in results:
        results["census"] = census.gather(results["census"], results.get("tokenizer"))
    return results


def _fields(config: Line) -> Line:
    """The fields of a config as on the command line, without those that name inputs."""
    named = {".".join(map(str, place)): value for place, value in flat(config).items()}
    return {name: value for name, value in named.items() if "<input " not in str(value)}


def _refused(folder: Path, lines: list[Line]) -> list[Line]:
    """The steps that the guard refused: `step`, and `why` where the batch was kept."""
    kept = [read_object(file) for file in sorted(folder.glob("incidents/*/incident.json"))]
    why = {told["step"]: incident.why(told) for told in kept}
    refused = [line["step"] for line in of_kind(lines) if line.get("accepted") == 0]
    return [{"step": step, "why": why.get(step, "")} for step in refused]


def is_live(folder: Path) -> bool:
    """Whether its stage is at work, or was cut short."""
    return folder.name.endswith(".partial")


def _manifest(folder: Path) -> Line:
    """Of a stage at work what it began with, and no counts."""
    if is_live(folder):
        return {**read_object(folder / artifact.STARTED), "counts": {}}
    manifest = artifact.read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is no finished artifact any more; run its stage again")
    return manifest


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
    rows = []
    if results.get("heldout"):
        total = next((row for row in results["heldout"] if row["source"] == "all"), None)
        if total is None:
            raise UserError("evaluate's results.json has no held-out row of all sources; run evaluate again")
        measure = f"Held-out text, bits per byte of the {total['model']} model (lower is better)"
        beside = f"xz -9e on the same {total['bytes']:,} bytes: {total['xz_bits_per_byte']:.3f}"
        rows.append((measure, f"{total['bits_per_byte']:.3f}", beside))
    if "reward" in results:
        rows += _reward_rows(results)
    if "ppo" in results:
        rows.append(_ppo_row(results))
    for task in benchmark_table(results.get("benchmarks", [])):
        values = [(name, share(row["value"], row["standard_error"])) for name, row in task["models"].items()]
        name, value = values[-1]
        others = "".join(f", {other} {text}" for other, text in values[:-1])
        rows.append((f"{task['task']} ({name})", value, f"chance {share(task['chance'])}{others}"))
    for row in results.get("core", [])[-1:]:
        others = "".join(f", {of['model']} {centred(of)}" for of in results["core"][:-1])
        rows.append((f"{row['name']} ({row['model']})", centred(row), f"guessing 0, perfect 1{others}"))
    return [dict(zip(("measure", "value", "beside"), row, strict=True)) for row in rows]


def _reward_rows(results: Results) -> list[tuple[str, str, str]]:
    reward, measure = results["reward"], "Reward model on held-out comparisons of"
    beside = (
        f"untrained {share(reward['untrained_accuracy'])}, longer answer wins "
        f"{share(reward['length_accuracy'])}, ceiling {share(reward['ceiling'])}"
    )
    value = share(reward["heldout_accuracy"], reward["standard_error"])
    rows = [(f"{measure} {raters(results)}", value, beside)]
    if "human_accuracy" in reward:
        value = share(reward["human_accuracy"], reward["human_standard_error"])
        rows.append((f"{measure} people", value, "chance 50.0 %"))
    return rows


def _ppo_row(results: Results) -> tuple[str, str, str]:
    """The true utility where it is known; else the proxy, which is called one."""
    ppo = results["ppo"]
    kl = f"KL {ppo['kl']:.2f} nats a sequence"
    if "utility_after" in ppo:
        sd = f"in SD ({ppo['utility_sd_before']:.3f}) of the fine-tuned model's answers"
        beside = f"from {ppo['utility_before']:.3f} to {ppo['utility_after']:.3f}, {sd}; {kl}"
        return f"PPO: true utility to {raters(results)}", f"{ppo['utility_gain_sd']:+.2f} SD", beside
    gain = f"{ppo['reward_after'] - ppo['reward_before']:+.2f} SD"
    proxy = "a proxy: whether people like its answers better was not measured"
    beside = f"in SD of the fine-tuned model's answers; {kl}; {proxy}"
    return "PPO: score of the reward model that it was trained on", gain, beside


def raters(results: Results) -> str:
    """Who ranked the answers; simulated raters are never called anything else."""
    return "simulated raters" if (results.get("rate") or {}).get("simulated") else "raters"


def share(value: float | None, error: float | None = None) -> str:
    """`0.781` as `78.1 %`, with one standard error behind it where given; None is not known."""
    if value is None:
        return "unknown"
    return f"{100 * value:.1f} %" if error is None else f"{100 * value:.1f} ± {100 * error:.1f} %"


def centred(row: Line) -> str:
    """A mean of centred scores with one standard error: `0.123 ± 0.010`."""
    return f"{row['value']:.3f} ± {row['standard_error']:.3f}"


def duration(seconds: float) -> str:
    """`7.2 s`, `4 min 10 s`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def samples(folder: Path) -> list[Line]:
    """What a model wrote for each prompt of `samples.jsonl`, at the `first` step there and the `last`."""
    path, by_prompt = folder / "samples.jsonl", defaultdict[str, list[Line]](list)
    for line in read_lines(path) if path.is_file() else ():
        by_prompt[line["prompt"]].append(line)
    found = []
    for prompt, lines in by_prompt.items():
        first, last = lines[0], lines[-1]
        texts = {"prompt": prompt, "first": first["completion"], "last": last["completion"]}
        found.append({**texts, "first_step": first["step"], "last_step": last["step"]})
    return found


def read_lines(path: Path) -> list[Line]:
    """The objects of a `.jsonl` file; a last line without its end (being written) is left out."""
    if not path.is_file():
        raise UserError(f"{path} is missing; run its stage again")
    # a text in it may hold other line ends
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines if line]
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not readable JSON ({error}); run its stage again") from error


def of_kind(lines: list[Line], kind: str = "") -> list[Line]:
    """Lines of metrics.jsonl of one kind, such as `heldout` or `round`; by default the training steps."""
    return [line for line in lines if line.get("kind", "") == kind]


def _collected(folder: Path, manifest: Line, counts: Line) -> Results:
    return {"collected": counts, "unread": read_object(folder / "unread.json")}


def _cleaned(folder: Path, manifest: Line, counts: Line) -> Results:
    return {part: read_object(folder / f"{part}.json") for part in ("funnel", "mixture", "census")}


def _pretrained(folder: Path, manifest: Line, counts: Line) -> Results:
    lines = read_lines(folder / "metrics.jsonl")
    model, trained = manifest["config"]["model"], of_kind(lines)
    speeds = [line["targets"] / line["seconds"] for line in trained[1:]]  # the first step compiles
    if not speeds:
        raise UserError("pretrain's metrics.jsonl has fewer than two steps: nothing to report")
    fields = {name: value for name, value in model.items() if name != "class"}
    matmul = counts["matmul_parameters"] if counts else ModelConfig(**fields).matmul_parameters
    *_, speed = {}, *of_kind(lines, "speed")
    found = {
        "steps": len(trained),
        "tokens": counts["tokens"] if counts else int(sum(line["targets"] for line in trained)),
        "parameters": matmul + model["vocab_size"] * model["d_model"],
        "matmul_parameters": matmul,
        "tokens_per_second": median(speeds),
        "flops_per_second": ModelConfig(**fields).flops_per_token() * median(speeds),
        "refused": sum(line["accepted"] == 0 for line in trained),
        "rollbacks": of_kind(lines, "rollback"),
        **{of: speed.get(of) for of in ("goodput", "mfu", "data_wait", "peak_memory_bytes")},
        "seconds": {of.split("/")[1]: value for of, value in speed.items() if of.startswith("seconds/")},
        # steps whose checkpoint is kept
        "checkpoints": sorted(int(at.name) for at in (folder / "checkpoint").glob("*") if at.name.isdigit()),
        "incidents": len(list((folder / "incidents").glob("batch-*"))),
    }
    return {"pretrain": found}


def _finetuned(folder: Path, manifest: Line, counts: Line) -> Results:
    lines = read_lines(folder / "metrics.jsonl")
    evaluated, trained = of_kind(lines, "heldout"), of_kind(lines)
    if not trained:
        raise UserError("finetune's metrics.jsonl has no steps: nothing to report")
    losses = [line["loss"] for line in evaluated]
    return {"finetune": {"steps": len(trained), "heldout_losses": losses}}


def _evaluated(folder: Path, manifest: Line, counts: Line) -> Results:
    """Parts that evaluate was not asked for are empty."""
    found = read_object(folder / "results.json")
    asked = {part: found.get(part, []) for part in (*MEASURED, "harness", "answers")}
    return {"benchmarks": found["tasks"], "heldout": found["heldout"], **asked}


def _counts(name: str) -> Callable[[Path, Line, Line], Results]:
    """Of whom the page shows the counts alone."""
    return lambda folder, manifest, counts: {name: counts}


def _classified(folder: Path, manifest: Line, counts: Line) -> Results:
    """Its numbers beside what always guessing the commonest label scores."""
    labelled = counts["documents"].values()
    return {"trained": {"classify": _numbers(counts) | {"commonest_label": max(labelled) / sum(labelled)}}}


def _trained(name: str) -> Callable[[Path, Line, Line], Results]:
    """What is alike in all that trains: the numbers among its counts."""
    return lambda folder, manifest, counts: {"trained": {name: _numbers(counts)}}


def _numbers(counts: Line) -> Line:
    return {name: value for name, value in counts.items() if isinstance(value, int | float)}


def _rated(folder: Path, manifest: Line, counts: Line) -> Results:
    return {"rate": counts | {"description": utility.DESCRIPTION if counts["simulated"] else ""}}


PARTS = {
    "collect": Part(stage="collect", read=_collected, on_accelerator=False),
    "classify": Part(stage="classify", read=_classified, is_chained=False),
    "clean": Part(stage="clean", read=_cleaned, on_accelerator=False),
    "tokenize": Part(stage="tokenize", read=_counts("tokenizer"), on_accelerator=False),
    "pretrain": Part(stage="pretrain", read=_pretrained, is_live=True),
    "midtrain": Part(stage="finetune", kind=None, read=_trained("midtrain")),
    "finetune": Part(stage="finetune", read=_finetuned, is_live=True),
    "rate": Part(stage="rate", read=_rated),
    "reward": Part(stage="align", kind="RewardConfig", read=_counts("reward")),
    "ppo": Part(stage="align", kind="PPOConfig", read=_counts("ppo")),
    "preference": Part(stage="align", kind="PreferenceConfig", read=_trained("preference"), is_chained=False),
    "grpo": Part(stage="align", kind="GRPOConfig", read=_trained("grpo"), is_chained=False),
    "distill": Part(stage="align", kind="DistillConfig", read=_trained("distill"), is_chained=False),
    "evaluate": Part(stage="evaluate", read=_evaluated),
}
"""In the order data flows."""
