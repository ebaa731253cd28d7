"""jaxtrain tokenize configs/smollm2_135m/3_tokenize.py

Encodes the quickstart's clean text and conversations with SmolLM2's tokenizer and chat template. The model's
folder `smollm2_135m` is Hugging Face's, or made by `benchmarks/smollm2.py`. Result in half a minute on two
cores: 0.36 million tokens of conversations.
"""

from pathlib import Path

from jaxtrain.tokenize.run import TokenizeConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = TokenizeConfig(
    documents="runs/quickstart/2_clean",
    tokenizer="smollm2_135m",
    template="chatml",
    out=f"{RUNS}/3_tokenize",
)
