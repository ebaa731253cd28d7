"""jaxtrain clean configs/refusals/2_clean.py

As the quickstart's, of its conversations and the refusals; the pages are there because a clean artifact has
documents.
"""

from pathlib import Path

from jaxtrain.clean import Quotes, chat, web
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
        "web": (*web("en"), quotes),
        "dolly": (*chat("en"), quotes),
        "alpaca": (*chat("en"), quotes),
        "refusals": (*chat("en"), quotes),
    },
    mixture={"web": 1.0},
    heldout_bytes=20_000,
    out=f"{RUNS}/2_clean",
)
