"""Token records -> batches, each a pure function of (seed, step), the same for any number of processes.

In: an artifact of tokenize. Out: Grain datasets of dicts of numpy arrays [B, T] (docs/formats.md, "Batches").
sources.py      open an artifact of tokenize: token records, conversations, lengths, weights
packing.py      plans: which pieces of which records make row n, computed from lengths alone
shuffle.py      which row of which source stands where: a keyed permutation, its epochs, a mixture of sources
documents.py    the documents of a run: packed, mixed, in batches that may grow, and counted before it starts
rows.py         pieces of records -> the arrays of a batch
loader.py       document_batches, conversation_batches, heldout_batches, prefetch
heldout.py      bits per byte of held-out documents
prompts.py      the questions of clean conversations
"""
