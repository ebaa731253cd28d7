"""jaxtrain pretrain configs/gpt_oss/1_pretrain.py

The shape of gpt-oss-120b (arXiv 2508.10925), as `config.json` beside this file says it: 117 billion weights,
128 experts of which a token visits 4, attention sinks. `data` is a tokenize artifact made with its tokenizer.
Rows are of 2,048 tokens: each of the 16 devices along `expert` may send all of its row's tokens, four times,
to one of them, and a v6e has no room for those of rows of 4,096. Before a run:
`jaxtrain plan configs/gpt_oss/1_pretrain.py --topology v6e:16x16`, or with another topology.
"""

import dataclasses
from pathlib import Path

from jaxtrain import weights
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

HERE = Path(__file__).resolve().parent
RUNS = f"runs/{HERE.name}"

config = PretrainConfig(
    data=f"{RUNS}/tokens",
    model=dataclasses.replace(weights.open(HERE).config, max_length=2048, remat="full"),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=2.2e-4, warmup_steps=2000, schedule="cosine", final_lr_share=0.1),
        mesh=MeshConfig(fsdp=-1, expert=16),
        steps=100_000,
        microbatches=4,
        evaluate_every=1000,
        checkpoint_every=1000,
    ),
    batch_size=1024,
    out=f"{RUNS}/1_pretrain",
)
