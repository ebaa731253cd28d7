"""jaxtrain grpo configs/arithmetic_grpo/6_grpo.py

Practises the additions that it was not taught; an answer is worth 1 where it is right and 0 where it is not.
Result in three and a half minutes on two busy cores: of 500 additions that it never met, from 38 % right to
99 %; 91 % after 200 rounds.
"""

from pathlib import Path

from jaxtrain.align.monitor import MonitorConfig
from jaxtrain.align.run import GRPOConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = GRPOConfig(
    model=f"{RUNS}/5_finetune",
    tasks=("data/arithmetic/task.py",),
    data="data/arithmetic",
    train=TrainConfig(
        optimizer=OptimizerConfig(
            kind="muon", lr=3e-3, rest_lr=1e-3, warmup_steps=5, schedule="linear", weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        steps=1000,
        evaluate_every=100,
        checkpoint_every=200,
    ),
    monitor=MonitorConfig(least_entropy=0.0),
    prompts=64,
    group=8,
    epochs=1,
    minibatches=2,
    longest_prompt=9,
    max_new=4,
    measured=500,
    out=f"{RUNS}/6_grpo",
)
