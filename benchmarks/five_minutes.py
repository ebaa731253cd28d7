"""Five minutes of training, ours beside PyTorch's on the same rows: bits per byte of the same held-out text.

PEER=.venv-peers/bin/python
python benchmarks/five_minutes.py --torch $PEER                                    two quiet cores, an hour
python benchmarks/five_minutes.py --torch $PEER --seconds 15 --seeds 1 --rates 1   does it run to its end?
python benchmarks/five_minutes.py --torch $PEER --scale shipped --seeds 1 --rates 1 --torch-seconds 60

The last one is for one GPU. Model, batch, schedule and text are those of configs/five_minutes, whose first
three stages run where they have not. Both train the same decoder (without qk-norm) with AdamW on the same
rows in the same order; each tries every rate with the first seed, and takes its best one for the others; who
begins alternates. Each compiles, finds its pace in steps that do not count, begins anew with a schedule over
as many steps as the budget holds at that pace, and stops at the last of them or when the time is over. The
first step and scoring are outside the clock. A curve is a list of seconds and training loss.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from jaxtrain import config as configs
from jaxtrain.feed import heldout, loader
from jaxtrain.feed.documents import Documents
from jaxtrain.feed.sources import TokenData
from jaxtrain.model.transformer import Transformer
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.train import loop
from jaxtrain.train.context import training
from jaxtrain.train.learner import Learner
from jaxtrain.train.losses import token_loss
from jaxtrain.weights.learners import runs_as

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs" / "five_minutes"
CURVE = 100
"""Points of a curve at most."""
MOST = {"cpu": 12_000}
"""Tokens a second that PyTorch surely does not reach, by scale; two million of others."""
LONG = 10_000
"""Steps that are never taken: of the run that finds the pace."""
Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1, 2], help="times the recipe's")
    parser.add_argument("--torch", default="", help="a Python with torch; without it ours alone")
    parser.add_argument("--torch-seconds", type=float, help="another budget for it, for its pace alone")
    parser.add_argument("--name", default="five_minutes", help="of the file in benchmarks/results")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ours:
        print(json.dumps(ours(json.loads(Path(asked.ours).read_text()))))
        return
    for stage in ("1_collect", "2_clean", "3_tokenize"):
        command = [sys.executable, "-m", "jaxtrain", stage[2:], str(RECIPE / f"{stage}.py")]
        subprocess.run([*command, "--scale", asked.scale], check=True, cwd=ROOT, stdout=sys.stderr)
    with tempfile.TemporaryDirectory() as work:
        found = duel(asked, config_of(asked.scale), Path(work))
    record(asked.name, ["jax"], found)


def config_of(scale: str) -> PretrainConfig:
    config = configs.load(RECIPE / "4_pretrain.py", scale)
    model = dataclasses.replace(config.model, qk_norm=False)
    return dataclasses.replace(config, model=model, data=str(ROOT / config.data))


def size_of(config: PretrainConfig) -> dict[str, int]:
    return {"batch_size": config.batch_size, "length": config.model.max_length}


def duel(asked: argparse.Namespace, config: PretrainConfig, work: Path) -> Found:
    budgets = {"ours": asked.seconds}
    if asked.torch:
        budgets["torch"] = asked.torch_seconds or asked.seconds
    batch = config.batch_size * config.model.max_length
    batches = int(budgets.get("torch", 0) * MOST.get(asked.scale, 2_000_000)) // batch
    runs: dict[str, list[Found]] = {side: [] for side in budgets}
    turns = [(0, rate) for rate in asked.rates] + [(seed, None) for seed in range(1, asked.seeds)]
    for turn, (seed, rate) in enumerate(turns):
        write_rows(config, seed, batches, work)
        for side in list(budgets)[:: -1 if turn % 2 else 1]:
            lr = rate * config.train.optimizer.lr if rate else best(runs[side])["lr"]
            spec = spec_of(config, work) | {"scale": asked.scale, "seed": seed, "seconds": budgets[side]}
            run = {"seed": seed, "lr": lr, **one(side, spec | {"lr": lr}, asked.torch, work)}
            run["tokens_per_second"] = round((run["steps"] - 1) * batch / run["seconds"])
            runs[side].append(run)
            print(side, {name: value for name, value in run.items() if name != "curve"}, flush=True)
    told = {"command": f"python benchmarks/five_minutes.py {' '.join(sys.argv[1:])}", "budgets": budgets}
    told |= {"shape": spec_of(config, work)["shape"], **{side: summary(of) for side, of in runs.items()}}
    for name in ("bits_per_byte", "tokens_per_second") if asked.torch else ():
        told[f"ratio_of_{name}"] = told["ours"][name] / told["torch"][name]
    return told


def best(runs: list[Found]) -> Found:
    """By the first seed."""
    return min((run for run in runs if run["seed"] == 0), key=itemgetter("bits_per_byte"))


def summary(runs: list[Found]) -> Found:
    """Of the seeds at the best rate the mean, and the median pace; then all runs."""
    kept = [run for run in runs if run["lr"] == best(runs)["lr"]]
    return {
        "lr": kept[0]["lr"],
        "bits_per_byte": statistics.mean(run["bits_per_byte"] for run in kept),
        "tokens_per_second": statistics.median(run["tokens_per_second"] for run in kept),
        "runs": runs,
    }


def spec_of(config: PretrainConfig, work: Path) -> Found:
    """What PyTorch's side has to know."""
    model, data = config.model, TokenData.open(config.data)
    shape = {"layers": model.layers, "width": model.d_model, "heads": model.heads, "hidden": model.d_hidden}
    return {
        "shape": {**shape, "vocab": model.vocab_size, "length": model.max_length, "batch": config.batch_size},
        "bf16": config.train.dtype == "bfloat16",
        "final_share": config.train.optimizer.final_lr_share,
        "rows": str(work / "rows.npy"),
        "heldout": str(work / "heldout.npy"),
        "bytes": sum(data.heldout_bytes(source) for source in loader.heldout_sources(config.data)),
    }


def write_rows(config: PretrainConfig, seed: int, batches: int, work: Path) -> None:
    """Training and held-out rows, int16 [batches, 2, B, T]: tokens, and targets, -100 where none counts."""
    size, process = size_of(config), (0, 1)  # asking JAX for the process would take its device
    documents = loader.document_batches(Documents.open(config.data, **size, seed=seed), process)
    scored = [
        batch
        for source in loader.heldout_sources(config.data)
        for batch in loader.heldout_batches(config.data, source, **size, process=process)
    ]
    for name, read, count in (
        ("rows", loader.prefetch(documents, 0, batches), batches),
        ("heldout", scored, len(scored)),
    ):
        shape = (count, 2, size["batch_size"], size["length"])
        file = np.lib.format.open_memmap(work / f"{name}.npy", "w+", np.int16, shape)
        for at, batch in enumerate(read):
            file[at] = batch["tokens"], np.where(batch["loss_weights"] > 0, batch["targets"], -100)
        file.flush()


def one(side: str, spec: Found, python: str, work: Path) -> Found:
    """A run in a process of its own."""
    file = work / "spec.json"
    file.write_text(json.dumps(spec))
    peer = str(ROOT / "benchmarks" / "peers" / "five_minutes_torch.py")
    command = [sys.executable, __file__, "--ours"] if side == "ours" else [python, peer]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(file)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


class Clock:
    """Batches until the time is over. It begins when the second is asked for: the first step compiles."""

    def __init__(self, read: Any, seconds: float):
        self.read, self.seconds, self.begun = read, seconds, 0.0

    def __call__(self, start: int, stop: int) -> Iterator[loop.Batch]:
        for at, batch in enumerate(self.read(start, stop)):
            if at == 1:
                self.begun = time.perf_counter()
            elif at and self.took() >= self.seconds:
                return
            yield batch

    def took(self) -> float:
        return time.perf_counter() - self.begun


def ours(spec: Found) -> Found:
    """The loop of the training stages."""
    paced, _ = train(spec, LONG, spec["seconds"] / 20)
    planned = max(2, 1 + int(spec["seconds"] * (paced.step - 1) / paced.heldout["took"]))
    done, losses = train(spec, planned, spec["seconds"])
    every = max(1, len(losses) // CURVE)
    curve = [[round(at, 3), round(loss, 4)] for at, loss in losses[::every]]
    found = {"planned": planned, "steps": done.step, "seconds": done.heldout["took"]}
    return found | {"bits_per_byte": done.heldout["all"], "curve": curve}


def train(spec: Found, steps: int, seconds: float) -> tuple[loop.Trained, list[tuple[float, float]]]:
    """At most so many steps and seconds; the loss of each step, after so long."""
    config = config_of(spec["scale"])
    optimizer = dataclasses.replace(config.train.optimizer, lr=spec["lr"], warmup_steps=steps // 20)
    settings = dataclasses.replace(
        config.train, optimizer=optimizer, steps=steps, seed=spec["seed"], log_every=0, trackers=()
    )
    documents = Documents.open(config.data, **size_of(config), seed=spec["seed"])
    clock = Clock(partial(loader.prefetch, loader.document_batches(documents)), seconds)

    def evaluate(model: Transformer, step: int) -> Found:
        took = clock.took()
        scored = {} if steps == LONG else heldout.measure(model, config.data, **size_of(config))
        return {"took": took, **scored}

    with tempfile.TemporaryDirectory() as folder:
        with training(settings, Path(folder), lambda folder: None) as run:
            learner = Learner(partial(Transformer, runs_as(settings, config.model)))
            done = loop.train(run, learner, partial(token_loss, z_loss=0.0), loop.Feed(clock), evaluate)
        lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    told = [line for line in lines if "kind" not in line]
    after = np.cumsum([0.0, *(line["seconds"] for line in told[1:])]).tolist()
    return done, [(at, line["loss"]) for at, line in zip(after, told, strict=True)]


if __name__ == "__main__":
    main()
