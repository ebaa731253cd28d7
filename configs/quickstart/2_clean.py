"""jaxtrain clean configs/quickstart/2_clean.py

Keeps nearly all of the novels, the encyclopedia and the code and nine in ten
web pages; holds out some 400 kB.
`funnel.json` counts every drop by its reason, `dropped/` has each dropped text whole.
A quarter of a minute on two cores.
"""

from jaxtrain.clean.examine import Rules
from jaxtrain.clean.run import CleanConfig

config = CleanConfig(
    documents="runs/quickstart/1_collect",
    rules={
        "wiki": Rules(preset="prose"),
        "books": Rules(preset="prose"),
        "code": Rules(preset="code", language_score=None, personal=("email", "ip")),
        "web": Rules(preset="web"),
    },
    mixture={"wiki": 0.4, "books": 0.35, "code": 0.1, "web": 0.15},
    languages=("en",),
    benchmarks=(
        "data/quickstart/benchmarks/arc_easy.jsonl.gz",
        "data/quickstart/benchmarks/piqa.jsonl.gz",
        "data/quickstart/benchmarks/winogrande.jsonl.gz",
    ),
    heldout_bytes=400_000,
    out="runs/quickstart/2_clean",
)
