"""jaxtrain clean configs/tiny/2_clean.py

Result in a few seconds: nine in ten web pages, all of the code but a copy, and 45 kB held out for evaluation.
"""

from pathlib import Path

from jaxtrain.clean import Quotes, chat, code, web
from jaxtrain.clean.run import CleanConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

quotes = Quotes(("data/quickstart/benchmarks/arc_easy.jsonl.gz",))

config = CleanConfig(
    documents=f"{RUNS}/1_collect",
    filters={
        "web": (*web("en"), quotes),
        "code": (*code(), quotes),
        "alpaca": (*chat("en"), quotes),
    },
    mixture={"web": 0.8, "code": 0.2},
    heldout_bytes=40_000,
    out=f"{RUNS}/2_clean",
)
