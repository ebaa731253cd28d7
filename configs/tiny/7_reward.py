"""jaxtrain reward configs/tiny/7_reward.py

A reward model from 60-odd comparisons: too few to learn from, enough to see that every part works.
"""

from pathlib import Path

from jaxtrain.align.run import RewardConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = RewardConfig(
    model=f"{RUNS}/5_finetune",
    ratings=f"{RUNS}/6_rate",
    human="data/quickstart",
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=2e-3, warmup_steps=2, schedule="linear", final_lr_share=0.0, weight_decay=0.1
        ),
        evaluate_every=8,
        checkpoint_every=4,
    ),
    epochs=2.0,
    batch_prompts=8,
    length=61,
    out=f"{RUNS}/7_reward",
)
