"""jaxtrain evaluate configs/documents/5_evaluate.py

How well it predicts the held-out text, in bits per byte beside xz. No benchmarks.
"""

from pathlib import Path

from jaxtrain.evaluate.run import EvaluateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = EvaluateConfig(
    models={"pretrained": f"{RUNS}/4_pretrain"},
    clean=f"{RUNS}/2_clean",
    data=f"{RUNS}/3_tokenize",
    tasks=(),
    out=f"{RUNS}/5_evaluate",
)
