"""jaxtrain reward configs/people/2_reward.py

Its accuracy on held-out comparisons is to be read beside that of the longer answer.
"""

from pathlib import Path

from jaxtrain.align.run import RewardConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = RewardConfig(
    model="runs/quickstart/5_finetune",
    ratings=f"{RUNS}/1_export",
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=5e-4, warmup_steps=2, schedule="linear", final_lr_share=0.0, weight_decay=0.1
        ),
        evaluate_every=8,
        checkpoint_every=8,
    ),
    epochs=2.0,
    batch_prompts=8,
    length=256,
    out=f"{RUNS}/2_reward",
)
