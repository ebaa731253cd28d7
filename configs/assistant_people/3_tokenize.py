"""jaxtrain tokenize configs/assistant_people/3_tokenize.py

With the tokenizer and the chat template of the model.
"""

from jaxtrain.config import scaled
from jaxtrain.tokenize.run import TokenizeConfig

scale = scaled(__file__)

config = TokenizeConfig(
    documents=f"{scale.runs}/2_clean",
    tokenizer=scale.model,
    out=f"{scale.runs}/3_tokenize",
)
