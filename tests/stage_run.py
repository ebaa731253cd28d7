"""Small runs of the seven stages that train, for tests that kill, poison, move and share them.

A run is a process forked from one that has imported everything and started nothing, with as many devices and
in as many processes as the test asks for; or, by `run_here`, the test's own. `Fault`s come at a stated batch.
"""

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from adder_run import TASK

from jaxtrain import pipeline
from jaxtrain.align import rounds
from jaxtrain.align.distill import DistillConfig
from jaxtrain.align.grpo import GRPOConfig
from jaxtrain.align.ppo import PPOConfig
from jaxtrain.align.preference import PreferenceConfig
from jaxtrain.align.reward_model import RewardConfig
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.context import Run
from jaxtrain.train.optimizer import OptimizerConfig

ROOT = Path(__file__).parents[1]
STAGES = ("pretrain", "finetune", "reward", "preference", "ppo", "grpo", "distill")
SAMPLING = ("ppo", "grpo", "distill")
STEPS = 8


@dataclass(frozen=True)
class Inputs:
    """Folders that the stages read."""

    tiny: Path
    """`runs/tiny` of the recipe."""
    adder: Path
    """A model that half knows sums, and the sums: what GRPO begins with."""


@dataclass(frozen=True)
class Fault:
    """What happens to a run.

    kill, kill in save: SIGKILL when the batch is asked for, or while the checkpoint behind it is written.
    stop: SIGTERM when the batch is asked for. nan, 1e9: by what the batch's loss and gradient are multiplied.
    memory: the step asks for more than there is.
    """

    kind: Literal["kill", "kill in save", "stop", "nan", "1e9", "memory"]
    batch: int = 0


def config(stage: str, inputs: Inputs, out: Path, mesh: MeshConfig | None = None) -> Any:
    """Of eight steps, with a checkpoint every three."""

    def of(name: str) -> str:
        return str(inputs.tiny / name)

    train = TrainConfig(
        optimizer=OptimizerConfig(lr=2e-3, warmup_steps=2, schedule="constant"),
        mesh=mesh or MeshConfig(),
        steps=STEPS,
        evaluate_every=0,
        checkpoint_every=3,
        log_every=4,
        peak_tflops=0.001,
        trackers=(),
    )
    common: dict[str, Any] = {"out": str(out), "train": train}
    tuned = common | {"model": of("5_finetune")}
    short = {"max_new": 8, "measured": 16}
    match stage:
        case "pretrain":
            sizes = {"layers": 2, "d_model": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "d_hidden": 128}
            model = ModelConfig(vocab_size=1024, max_length=64, **sizes)
            return PretrainConfig(data=of("3_tokenize"), model=model, sample_prompts=("The",), **common)
        case "finetune":
            data = {"model": of("4_pretrain"), "data": of("3_tokenize")}
            return FinetuneConfig(sample_questions=("Hi?",), **data, **common)
        case "reward":
            human = str(ROOT / "data" / "quickstart")
            return RewardConfig(ratings=of("6_rate"), human=human, batch_prompts=4, length=64, **tuned)
        case "preference":
            return PreferenceConfig(ratings=of("6_rate"), batch_pairs=8, length=64, **tuned)
        case "ppo":
            sizes = {"rollouts": 16, "epochs": 2, "minibatches": 2, "sample_questions": ("Hi?",)}
            reads = {"reward": of("7_reward"), "conversations": of("2_clean")}
            return PPOConfig(**reads, **sizes, **short, **tuned)
        case "grpo":
            sizes = {"prompts": 4, "group": 8, "epochs": 2, "minibatches": 2, "longest_prompt": 8}
            begin = tuned | short | {"model": str(inputs.adder / "model"), "max_new": 3}
            return GRPOConfig(tasks=(TASK,), data=str(inputs.adder), **sizes, **begin)
        case "distill":
            reads = {"teacher": of("4_pretrain"), "conversations": of("2_clean")}
            return DistillConfig(rollouts=16, **reads, **short, **tuned)
    raise ValueError(stage)


def run_here(config: Any, *faults: Fault) -> Path:
    """The stage in this process."""
    module = importlib.import_module(type(config).__module__)
    # stages that sample call the loop by their rounds
    module = module if hasattr(module, "train") else rounds
    train = module.train
    module.train = partial(_disturbed, train, faults)
    try:
        return pipeline.make(config)
    finally:
        module.train = train


def _disturbed(
    train: Callable[..., Any],
    faults: Sequence[Fault],
    run: Run,
    learner: Any,
    loss: Any,
    feed: Any,
    *more,
    **named,
) -> Any:
    """`jaxtrain.train.loop.train` with faults. Of every run batch and loss are the same but at a fault."""
    by_batch = {fault.batch: fault.kind for fault in faults}

    def read(start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        for index, batch in zip(range(start, stop), feed.read(start, stop)):  # noqa: B905, a feed may end early
            kind = by_batch.get(index)
            if kind in ("kill", "stop"):
                os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            factor = {"nan": np.nan, "1e9": 1e9}.get(kind or "", 1.0)
            yield batch | {"factor": np.full_like(batch["tokens"], factor, np.float32)}

    def disturbed_loss(model: Any, batch: dict[str, jax.Array]) -> Any:
        total, *rest = loss(model, {name: values for name, values in batch.items() if name != "factor"})
        total = total * jnp.max(batch["factor"])
        if any(fault.kind == "memory" for fault in faults):
            endless = jnp.broadcast_to(total, (1 << 24, 1 << 20)) * jnp.arange(1 << 20)
            total = jnp.sort(endless, axis=0)[0, 0]
        return total, *rest

    def save(step: int, *trees: Any) -> None:
        started(step, *trees)
        if by_batch.get(step - 1) == "kill in save":
            os.kill(os.getpid(), signal.SIGKILL)

    started, run.checkpoints.save = run.checkpoints.save, save
    return train(run, learner, disturbed_loss, dataclasses.replace(feed, read=read), *more, **named)


_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["stage_run", "adder_run", "orbax.checkpoint.v1"])


def start(
    work: Callable[..., Any], *arguments: Any, devices: int = 8, process: tuple[int, int, int] | None = None
) -> Any:
    """`work(*arguments)` in a process with so many devices. process: its number, how many, first's port."""
    environment = {}
    if process is not None:
        number, count, port = process
        environment = {
            "JAXTRAIN_COORDINATOR": f"127.0.0.1:{port}",
            "JAXTRAIN_PROCESSES": str(count),
            "JAXTRAIN_PROCESS": str(number),
        }
    started = _forks.Process(target=_inside, args=(environment, devices, work, arguments))
    started.start()
    return started


def share(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The same in two processes of four devices."""
    port = free_port()
    return [start(work, *arguments, devices=4, process=(number, 2, port)) for number in range(2)]


def finish(*processes: Any, status: int = 0) -> None:
    """Wait for them; each must end with this status."""
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [status] * len(processes)


def _inside(environment: dict[str, str], devices: int, work: Callable[..., Any], arguments: Any) -> None:
    os.environ.update(environment)
    jax.config.update("jax_num_cpu_devices", devices)
    work(*arguments)
    if jax.distributed.is_initialized():  # a forked process ends without what others do at exit
        jax.distributed.shutdown()


def run_recipe(folder: Path) -> None:
    """`jaxtrain run configs/tiny` there."""
    with contextlib.chdir(folder):
        pipeline.run(ROOT / "configs" / "tiny")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
