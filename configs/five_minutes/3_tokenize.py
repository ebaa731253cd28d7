"""jaxtrain tokenize configs/five_minutes/3_tokenize.py

A tokenizer of its own, and all text in tokens.
"""

from jaxtrain.config import scaled
from jaxtrain.tokenize.run import TokenizeConfig

scale = scaled(__file__)

config = TokenizeConfig(
    documents=f"{scale.runs}/2_clean",
    vocab_size=scale.vocab_size,
    sample_bytes=scale.sample_bytes,
    out=f"{scale.runs}/3_tokenize",
)
