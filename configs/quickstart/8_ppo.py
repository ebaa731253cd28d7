"""jaxtrain ppo configs/quickstart/8_ppo.py

Improves the fine-tuned model against the reward model by PPO. Result in 90 seconds on two cores: the true
utility rises by 1.1 standard deviations of the fine-tuned model's answers, at a KL of 5.1 nats a sequence.
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
        optimizer=OptimizerConfig(lr=3e-4, warmup_steps=5, schedule="constant", weight_decay=0.0),
        steps=44,
        evaluate_every=0,
        checkpoint_every=40,
    ),
    longest_prompt=32,
    max_new=24,
    rollouts=128,
    epochs=2,
    minibatches=2,
    kl_weight=0.05,
    out=f"{RUNS}/8_ppo",
)
