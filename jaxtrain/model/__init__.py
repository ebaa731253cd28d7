"""The network, as pure functions of a pytree, and weights in and out.

In: token ids `[B, T]`. Out: float32 logits `[B, T, V]`, or sampled tokens.

    from jaxtrain.model import load_pretrained, save_pretrained

config.py       ModelConfig: every shape and choice; the families differ in its fields alone
layers.py       weights with their shardings; norms, rotary embedding, MLP
attention.py    grouped-query attention
kernels.py      what computes it: XLA, blocks, a ring over the sequence, splash, cuDNN, Pallas
blocks.py       attention for CPUs
ring.py         attention over a sharded sequence
experts.py      mixture of experts
stack.py        the loop over layers, what is kept of each, the pipeline
transformer.py  Block, Transformer
cache.py        keys and values of tokens seen
slots.py        decoding: every row at its own place, layers unrolled
sampling.py     choosing the next token
generate.py     many answers at once
scheduler.py    continuous batching: requests that come and go
lora.py         low-rank adapters
peft.py         PEFT's folders
families.py     the tables of the Hugging Face families
huggingface.py  load_pretrained, save_pretrained
llama2c.py      the weights of llama2.c
convert.py      `jaxtrain convert`
store.py        the model of a folder, whatever kind it is of
"""

from typing import Any

__all__ = ["load_pretrained", "save_pretrained"]


def __getattr__(name: str) -> Any:
    """JAX is imported when weights are asked for, not with a config."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxtrain.model import huggingface

    return getattr(huggingface, name)
