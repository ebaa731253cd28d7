"""Token records -> batches, each a pure function of (seed, step), the same for any number of processes.

In: an artifact of tokenize. Out: Grain datasets of dicts of numpy arrays [B, T] (docs/formats.md, "Batches").
sources.py      open an artifact of tokenize: token records, conversations, lengths, weights
packing.py      plans: which pieces of which records make row n, computed from lengths alone
shuffle.py      a keyed permutation and the two datasets made of it: epochs of rows, a mixture of sources
loader.py       document_batches, conversation_batches, heldout_batches, needs, prefetch
"""
