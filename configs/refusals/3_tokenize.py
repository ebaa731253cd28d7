"""jaxtrain tokenize configs/refusals/3_tokenize.py

With the tokenizer of the quickstart's model.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(
    documents=f"{RUNS}/2_clean",
    tokenizer="runs/quickstart/3_tokenize/tokenizer",
    out=f"{RUNS}/3_tokenize",
)
