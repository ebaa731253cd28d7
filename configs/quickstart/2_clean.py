"""jaxtrain clean configs/quickstart/2_clean.py

Keeps nearly all of the novels, the encyclopedia and the code and nine in ten
web pages; holds out some 400 kB.
`funnel.json` counts every drop by its reason, `dropped/` has each dropped text whole.
A quarter of a minute on two cores.
"""

from pathlib import Path

from jaxtrain.clean import Quotes, chat, code, prose, web
from jaxtrain.clean.run import CleanConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

BENCHMARKS = (
    "data/quickstart/benchmarks/arc_easy.jsonl.gz",
    "data/quickstart/benchmarks/piqa.jsonl.gz",
    "data/quickstart/benchmarks/winogrande.jsonl.gz",
)
quotes = Quotes(BENCHMARKS)

config = CleanConfig(
    documents=f"{RUNS}/1_collect",
    filters={
        "wiki": (*prose("en"), quotes),
        "books": (*prose("en"), quotes),
        "code": (*code(), quotes),
        "web": (*web("en"), quotes),
        "dolly": (*chat("en"), quotes),
        "alpaca": (*chat("en"), quotes),
    },
    mixture={"wiki": 0.4, "books": 0.35, "code": 0.1, "web": 0.15},
    heldout_bytes=400_000,
    out=f"{RUNS}/2_clean",
)
