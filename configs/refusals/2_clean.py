"""jaxtrain clean configs/refusals/2_clean.py

As the quickstart's, of its conversations and the refusals; the pages are there because a clean artifact has
documents.
"""

from jaxtrain.clean.examine import Rules
from jaxtrain.clean.run import CleanConfig

config = CleanConfig(
    documents="runs/refusals/1_collect",
    rules={"web": Rules(preset="web")},
    mixture={"web": 1.0},
    languages=("en",),
    benchmarks=(
        "data/quickstart/benchmarks/arc_easy.jsonl.gz",
        "data/quickstart/benchmarks/piqa.jsonl.gz",
        "data/quickstart/benchmarks/winogrande.jsonl.gz",
    ),
    heldout_bytes=20_000,
    out="runs/refusals/2_clean",
)
