"""jaxtrain: raw documents to an aligned, evaluated language model, in JAX.

One room a stage, in the order data flows: collect, clean, tokenize, pretrain, finetune, rate,
align, evaluate, report. Stages meet in files on disk (`docs/formats.md`).
"""

__version__ = "0.1.0"
