"""jaxtrain clean configs/arithmetic_grpo/2_clean.py

Keeps all of it but what is held out; sums are no language, so none is asked for.
"""

from pathlib import Path

from jaxtrain.clean import Code, Normalize, Turns
from jaxtrain.clean.run import CleanConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CleanConfig(
    documents=f"{RUNS}/1_collect",
    filters={"sums": (Normalize(code=True), Code()), "additions": (Normalize(), Turns())},
    mixture={"sums": 1.0},
    heldout_bytes=3_000,
    out=f"{RUNS}/2_clean",
)
