"""jaxtrain rate configs/tiny/6_rate.py

Simulated raters order 4 answers to each of 64 questions. Result in five seconds: 80 judgements in
`ratings.sqlite`, and the comparisons as Parquet.
"""

from pathlib import Path

from jaxtrain.rate.run import RateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = RateConfig(
    model=f"{RUNS}/5_finetune",
    conversations=f"{RUNS}/2_clean",
    prompts=64,
    answers=4,
    longest_prompt=48,
    max_new=12,
    raters=3,
    rated_twice=16,
    noise=0.2,
    out=f"{RUNS}/6_rate",
)
