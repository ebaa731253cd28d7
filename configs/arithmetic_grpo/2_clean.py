"""jaxtrain clean configs/arithmetic_grpo/2_clean.py

Keeps all of it but what is held out; sums are no language, so none is asked for.
"""

from jaxtrain.clean import Code, Normalize, Turns
from jaxtrain.clean.run import CleanConfig

config = CleanConfig(
    documents="runs/arithmetic_grpo/1_collect",
    filters={"sums": (Normalize(code=True), Code()), "additions": (Normalize(), Turns())},
    mixture={"sums": 1.0},
    heldout_bytes=3_000,
    out="runs/arithmetic_grpo/2_clean",
)
