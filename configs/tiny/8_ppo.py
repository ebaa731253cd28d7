"""jaxtrain ppo configs/tiny/8_ppo.py

Four rounds of 32 answers against the reward model. Result in fifteen seconds, most of them compilation.
"""

from pathlib import Path

from jaxtrain.align.run import PPOConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = PPOConfig(
    model=f"{RUNS}/5_finetune",
    reward=f"{RUNS}/7_reward",
    conversations=f"{RUNS}/2_clean",
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=2, schedule="constant", weight_decay=0.0),
        steps=16,
        evaluate_every=0,
        checkpoint_every=8,
    ),
    rollouts=32,
    epochs=2,
    minibatches=2,
    longest_prompt=48,
    max_new=12,
    kl_weight=0.05,
    measured=32,
    out=f"{RUNS}/8_ppo",
)
