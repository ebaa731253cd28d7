"""jaxtrain tokenize configs/arithmetic_grpo/3_tokenize.py

A tokenizer without merges: a digit is a token.
"""

from jaxtrain.tokenize.run import TokenizeConfig

config = TokenizeConfig(
    documents="runs/arithmetic_grpo/2_clean",
    out="runs/arithmetic_grpo/3_tokenize",
    vocab_size=263,
)
