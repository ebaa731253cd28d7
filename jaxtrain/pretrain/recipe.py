"""One dial: from the depth follow width, heads, tokens, batch and learning rate.

    width   64 a layer, in heads of 64; SwiGLU of 8/3 of the width (Shazeer 2020, arXiv 2002.05202). The loss
            hardly depends on width over depth (Kaplan et al. 2020, arXiv 2001.08361, section 3.2); 64 is the
            ratio of nanochat, whose dial this is
    D       20 tokens a weight that multiplies (Hoffmann et al. 2022, arXiv 2203.15556)
    batch   0.58 D^0.571 tokens, and
    rate    1.79 N^-0.713 D^0.307, N the weights of the blocks (Li et al. 2025, "Step Law", arXiv 2503.04715,
            fitted for AdamW with cosine decay to 1e-5, N from 60 million to 1 billion)

Above 60 million weights these are measured, below extrapolated.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.train.config import OptimizerConfig, TrainConfig

WIDTH = 64
"""Of the residual stream a layer, and of a head."""
TOKENS_PER_WEIGHT = 20.0
FINAL_RATE = 1e-5
MOST_WARMUP = 2000
"""Steps, as those of the law; shorter runs warm up for a twentieth."""


def model(depth: int, vocab_size: int, max_length: int = 2048) -> ModelConfig:
    """The shape of a model of so many layers."""
    if depth < 1:
        raise UserError(f"depth is {depth}; a model has at least 1 layer")
    return ModelConfig(
        vocab_size=vocab_size,
        layers=depth,
        d_model=WIDTH * depth,
        heads=depth,
        kv_heads=depth,
        head_dim=WIDTH,
        d_hidden=WIDTH * math.ceil(8 / 3 * depth),
        max_length=max_length,
    )


def batch_tokens(tokens: float) -> float:
    """The best batch of a run over so many tokens, in tokens."""
    return 0.58 * tokens**0.571


def learning_rate(block_weights: float, tokens: float) -> float:
    """AdamW's best peak learning rate."""
    return 1.79 * block_weights**-0.713 * tokens**0.307


def pretrain(
    depth: int,
    *,
    data: str,
    out: str,
    vocab_size: int,
    max_length: int = 2048,
    tokens_per_weight: float = TOKENS_PER_WEIGHT,
    train: Mapping[str, Any] = MappingProxyType({}),
    **others: Any,
) -> PretrainConfig:
    """The config of a run of that depth; `others` are fields of `PretrainConfig` as they stand,
    and `train` has those of its `TrainConfig` beside optimizer and steps.

    The batch is a power of two of rows, so that meshes and micro-batches divide it.
    """
    shape = model(depth, vocab_size, max_length)
    tokens = tokens_per_weight * shape.matmul_parameters
    rows = 2 ** max(0, round(math.log2(batch_tokens(tokens) / max_length)))
    steps = math.ceil(tokens / (rows * max_length))
    rate = learning_rate(shape.matmul_parameters - shape.d_model * vocab_size, tokens)
    optimizer = OptimizerConfig(
        lr=rate,
        warmup_steps=min(MOST_WARMUP, steps // 20),
        schedule="cosine",
        final_lr_share=FINAL_RATE / rate,
    )
    settings = TrainConfig(optimizer=optimizer, steps=steps, **train)
    return PretrainConfig(data=data, out=out, model=shape, train=settings, batch_size=rows, **others)
