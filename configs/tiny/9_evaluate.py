"""jaxtrain evaluate configs/tiny/9_evaluate.py

Three models on 16 items of each benchmark, far too few to tell them from chance, and on the held-out text.
"""

from jaxtrain.evaluate.run import EvaluateConfig

config = EvaluateConfig(
    models={
        "pretrained": "runs/tiny/4_pretrain",
        "finetuned": "runs/tiny/5_finetune",
        "ppo": "runs/tiny/8_ppo",
    },
    clean="runs/tiny/2_clean",
    data="runs/tiny/3_tokenize",
    benchmarks="data/quickstart",
    items=16,
    out="runs/tiny/9_evaluate",
)
