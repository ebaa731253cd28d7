"""The network, as pure functions of a pytree.

In: token ids `[B, T]`. Out: float32 logits `[B, T, V]`, or sampled tokens.
config.py       ModelConfig: every shape and choice
layers.py       weights with their shardings; norm, rotary embedding, gated MLP
attention.py    masks, grouped-query attention, the key-value cache
transformer.py  Block, Transformer
generate.py     prefill, decode, sampling
store.py        model.json and weights of a finished stage
"""
