"""jaxtrain rate configs/quickstart/6_rate.py

Samples six answers to each of 600 questions and has three simulated raters rank them; a hundred questions are
judged twice. Result in 40 seconds on two cores: 700 rankings; two raters agree on four pairs of five.
"""

from pathlib import Path

from jaxtrain.rate.run import RateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = RateConfig(
    model=f"{RUNS}/5_finetune",
    conversations=f"{RUNS}/2_clean",
    prompts=600,
    answers=6,
    longest_prompt=32,
    max_new=24,
    raters=3,
    rated_twice=100,
    noise=0.13,
    out=f"{RUNS}/6_rate",
)
