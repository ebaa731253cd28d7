"""jaxtrain tokenize configs/arithmetic_grpo/3_tokenize.py

A tokenizer without merges: a digit is a token.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(
    documents=f"{RUNS}/2_clean",
    out=f"{RUNS}/3_tokenize",
    vocab_size=263,
)
