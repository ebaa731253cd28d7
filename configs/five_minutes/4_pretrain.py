"""jaxtrain pretrain configs/five_minutes/4_pretrain.py

As many steps as five minutes hold, compiling aside, on the machine that the scale is named for. On another,
`python benchmarks/five_minutes.py` finds the pace and lays the schedule over as many steps as that allows.
"""

from dataclasses import replace

from jaxtrain.config import scaled
from jaxtrain.pretrain import recipe
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.train.config import OptimizerConfig, TrainConfig

scale = scaled(__file__)

dial = recipe.model(scale.depth, scale.vocab_size, scale.length)
heads = dial.d_model // scale.head_dim
shape = replace(dial, heads=heads, kv_heads=heads, head_dim=scale.head_dim)
blocks = shape.matmul_parameters - shape.d_model * scale.vocab_size

config = PretrainConfig(
    data=f"{scale.runs}/3_tokenize",
    model=shape,
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=recipe.learning_rate(blocks, scale.steps * scale.rows * scale.length),
            warmup_steps=scale.steps // 20,
            schedule="linear",
            final_lr_share=0.05,
        ),
        steps=scale.steps,
        dtype=scale.dtype,
        evaluate_every=0,
        checkpoint_every=0,
    ),
    batch_size=scale.rows,
    max_epochs=scale.max_epochs,
    out=f"{scale.runs}/4_pretrain",
)
