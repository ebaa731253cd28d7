"""jaxtrain pretrain configs/speedrun/4_pretrain.py

The dial of depth says shape, batch and rate. What it takes is planned, not run: expected, and from best to
worst, of programs compiled ahead by `jaxtrain plan configs/speedrun/4_pretrain.py --scale d20 --topology
h100:8`, with `--scale d24` and `--topology v6e:2x4` likewise. Bits per byte were not measured.

    scale  chips   hours             dollars       kWh               memory of a chip
    d20    8 H100  1.3 (1.1 to 1.5)  32 (27 to 37) 11.8 (6.5 to 22)  23 %
    d20    8 v6e   1.4 (1.2 to 1.9)  30 (27 to 41)  4.3 (2.0 to 15)  57 %
    d24    8 H100  2.8 (2.3 to 3.2)  67 (56 to 77) 24.5 (14 to 46)   33 %
    d24    8 v6e   2.9 (2.6 to 4.0)  64 (56 to 86)  9.1 (4.1 to 31)  82 %
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
