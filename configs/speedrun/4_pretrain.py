"""jaxtrain pretrain configs/speedrun/4_pretrain.py

Ten tokens a weight, and the dial of depth says the rest.
"""

from dataclasses import replace

from jaxtrain.config import scaled
from jaxtrain.pretrain import recipe
from jaxtrain.runtime.mesh import MeshConfig

scale = scaled(__file__)

dial = recipe.pretrain(
    scale.depth,
    data=f"{scale.runs}/3_tokenize",
    vocab_size=scale.vocab_size,
    max_length=scale.length,
    tokens_per_weight=scale.tokens_per_weight,
    train={
        "mesh": MeshConfig(fsdp=-1),
        "microbatches": scale.microbatches,
        "dtype": scale.dtype,
        "evaluate_every": 500,
        "checkpoint_every": 500,
    },
    out=f"{scale.runs}/4_pretrain",
)
# Heads of 128, twice as wide as the dial's: what the matrix units of both kinds of chips are made for.
heads = scale.depth // 2
shape = replace(dial.model, heads=heads, kv_heads=heads, head_dim=128)
config = replace(dial, model=shape, batch_size=max(8, dial.batch_size))  # a row a chip at least
