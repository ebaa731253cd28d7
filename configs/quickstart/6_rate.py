"""Sample answers of the fine-tuned model and have simulated raters rank them.

jaxtrain rate configs/quickstart/6_rate.py
"""

from jaxtrain.rate.run import RateConfig

config = RateConfig(
    model="runs/quickstart/5_finetune",
    conversations="runs/quickstart/2_clean",
    prompts=600,
    answers=6,
    longest_prompt=32,
    max_new=24,
    raters=3,
    rated_twice=100,
    noise=0.13,
    out="runs/quickstart/6_rate",
)
