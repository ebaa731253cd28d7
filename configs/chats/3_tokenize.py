"""jaxtrain tokenize configs/chats/3_tokenize.py

With the model's own tokenizer and chat template.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(documents=f"{RUNS}/2_clean", tokenizer="model", out=f"{RUNS}/3_tokenize")
