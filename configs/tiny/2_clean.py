"""jaxtrain clean configs/tiny/2_clean.py

Result in a few seconds: nine in ten web pages, all of the code, and 40 kB held out for evaluation.
"""

from jaxtrain.clean.examine import Rules
from jaxtrain.clean.run import CleanConfig

config = CleanConfig(
    documents="runs/tiny/1_collect",
    rules={
        "web": Rules(preset="web"),
        "code": Rules(preset="code", language_score=None, personal=("email", "ip")),
    },
    mixture={"web": 0.8, "code": 0.2},
    languages=("en",),
    benchmarks=("data/quickstart/benchmarks/arc_easy.jsonl.gz",),
    heldout_bytes=40_000,
    out="runs/tiny/2_clean",
)
