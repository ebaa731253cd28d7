"""The network, as pure functions of a pytree.

In: token ids `[B, T]`. Out: float32 logits `[B, T, V]`.

config.py          ModelConfig: every shape and choice; the families differ in its fields alone
quantized.py       weights in 8 and 4 bits
layers.py          weights with their shardings; norms, rotary embedding, MLP
attention.py       grouped-query attention
kernels.py         what computes it: XLA, blocks, a ring over the sequence, splash, cuDNN, Pallas
block_attention.py attention in blocks of queries
cudnn_attention.py attention by cuDNN, documents in a row
ring_attention.py  attention over a sharded sequence
experts.py         mixture of experts
stack.py           the loop over layers, what is kept of each, the pipeline
transformer.py     Block, Transformer
lora.py            low-rank adapters
"""
