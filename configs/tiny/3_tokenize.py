"""jaxtrain tokenize configs/tiny/3_tokenize.py

Result in two seconds: a tokenizer of 1,024 tokens, some 2.5 bytes each.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(
    documents=f"{RUNS}/2_clean",
    out=f"{RUNS}/3_tokenize",
    vocab_size=1024,
    sample_bytes=500_000,
)
