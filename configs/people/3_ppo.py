"""jaxtrain ppo configs/people/3_ppo.py

Some rounds against the reward model.
"""

from pathlib import Path

from jaxtrain.align.run import PPOConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = PPOConfig(
    model="runs/quickstart/5_finetune",
    reward=f"{RUNS}/2_reward",
    conversations="runs/quickstart/2_clean",
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=1e-4, warmup_steps=2, schedule="constant", weight_decay=0.0),
        steps=32,
        evaluate_every=0,
        checkpoint_every=8,
    ),
    rollouts=64,
    epochs=2,
    minibatches=2,
    longest_prompt=48,
    max_new=32,
    kl_weight=0.05,
    out=f"{RUNS}/3_ppo",
)
