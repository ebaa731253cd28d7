"""Sample answers of the fine-tuned model and have simulated raters rank them.

jaxtrain rate configs/quickstart/6_rate.py
"""

from jaxtrain.rate.run import RateConfig

config = RateConfig(
    model="runs/quickstart/5_finetune",
    conversations="runs/quickstart/2_clean",
    prompts=500,
    answers=4,
    longest_prompt=48,
    max_new=32,
    raters=3,
    rated_twice=100,
    noise=0.2,
    out="runs/quickstart/6_rate",
)
