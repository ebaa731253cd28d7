"""jaxtrain reward configs/quickstart/7_reward.py

A reward model from the simulated raters' comparisons. Result in a minute and a half on two cores: it orders
68 % of held-out pairs as the raters did (untrained 41 %, the longer answer 55 %, the true utility 84 %).
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
            lr=1e-3, warmup_steps=10, schedule="linear", final_lr_share=0.0, weight_decay=0.1
        ),
        evaluate_every=40,
        checkpoint_every=80,
    ),
    epochs=1.25,
    batch_prompts=4,
    length=58,
    out=f"{RUNS}/7_reward",
)
