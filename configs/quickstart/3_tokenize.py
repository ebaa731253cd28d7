"""jaxtrain tokenize configs/quickstart/3_tokenize.py

Trains a tokenizer of 4,096 tokens on 5 MB of the clean text, in the proportions of the mixture, and encodes
all of it: about 3.5 million tokens of documents and 0.5 million of conversations, 3.0 (code) to 3.5 (books)
bytes a token. Three seconds on two cores.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(
    documents=f"{RUNS}/2_clean",
    out=f"{RUNS}/3_tokenize",
    vocab_size=4096,
    sample_bytes=5_000_000,
)
