"""jaxtrain rate configs/quickstart/6_rate.py

Samples six answers to each of 600 questions and has three simulated raters rank them; a hundred questions are
judged twice. Result in 40 seconds on two cores: 700 rankings; two raters agree on four pairs of five.
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
