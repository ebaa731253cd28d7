"""jaxtrain tokenize configs/refusals/3_tokenize.py

With the tokenizer of the quickstart's model.
"""

from jaxtrain.tokenize.run import TokenizeConfig

config = TokenizeConfig(
    documents="runs/refusals/2_clean",
    tokenizer="runs/quickstart/3_tokenize/tokenizer",
    out="runs/refusals/3_tokenize",
)
