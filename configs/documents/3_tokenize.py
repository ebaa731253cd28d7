"""jaxtrain tokenize configs/documents/3_tokenize.py

A tokenizer of 2,048 tokens from your text; larger with more than some ten megabytes.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(documents=f"{RUNS}/2_clean", out=f"{RUNS}/3_tokenize", vocab_size=2048)
