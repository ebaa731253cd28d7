"""jaxtrain evaluate configs/tiny/9_evaluate.py

Three models on 16 items of each benchmark, far too few to tell them from chance, and on the held-out text.
"""

from pathlib import Path

from jaxtrain.evaluate.run import EvaluateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = EvaluateConfig(
    models={
        "pretrained": f"{RUNS}/4_pretrain",
        "finetuned": f"{RUNS}/5_finetune",
        "ppo": f"{RUNS}/8_ppo",
    },
    clean=f"{RUNS}/2_clean",
    data=f"{RUNS}/3_tokenize",
    benchmarks="data/quickstart",
    items=16,
    out=f"{RUNS}/9_evaluate",
)
