"""jaxtrain tokenize configs/assistant/3_tokenize.py

With the tokenizer and the chat template of the model.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(
    documents=f"{RUNS}/2_clean",
    tokenizer="smollm2_135m",
    out=f"{RUNS}/3_tokenize",
)
