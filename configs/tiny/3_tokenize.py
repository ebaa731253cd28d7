"""jaxtrain tokenize configs/tiny/3_tokenize.py

Result in two seconds: a tokenizer of 1,024 tokens, some 2.5 bytes each.
"""

from jaxtrain.tokenize.run import TokenizeConfig

config = TokenizeConfig(
    documents="runs/tiny/2_clean",
    out="runs/tiny/3_tokenize",
    vocab_size=1024,
    sample_bytes=500_000,
)
