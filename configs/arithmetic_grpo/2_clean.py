"""jaxtrain clean configs/arithmetic_grpo/2_clean.py

Keeps all of it but what is held out; sums are no language, so none is asked for.
"""

from jaxtrain.clean.examine import Rules
from jaxtrain.clean.run import CleanConfig

config = CleanConfig(
    documents="runs/arithmetic_grpo/1_collect",
    rules={"sums": Rules(preset="code", language_score=None, personal=())},
    mixture={"sums": 1.0},
    conversation_language_score=0.0,
    heldout_bytes=3_000,
    out="runs/arithmetic_grpo/2_clean",
)
