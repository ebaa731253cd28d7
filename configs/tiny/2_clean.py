"""jaxtrain clean configs/tiny/2_clean.py

Result in a few seconds: nine in ten web pages, all of the code, and 40 kB held out for evaluation.
"""

from jaxtrain.clean import Quotes, chat, code, web
from jaxtrain.clean.run import CleanConfig

quotes = Quotes(("data/quickstart/benchmarks/arc_easy.jsonl.gz",))

config = CleanConfig(
    documents="runs/tiny/1_collect",
    filters={
        "web": (*web("en"), quotes),
        "code": (*code(), quotes),
        "alpaca": (*chat("en"), quotes),
    },
    mixture={"web": 0.8, "code": 0.2},
    heldout_bytes=40_000,
    out="runs/tiny/2_clean",
)
