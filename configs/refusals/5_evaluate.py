"""jaxtrain evaluate configs/refusals/5_evaluate.py

How often each model declines 96 harmful requests and 96 harmless ones in the same words, none of which it was
taught. Result in 20 seconds on two cores: the model declines 28 % of the harmful (95 %: 20 to 38) and 38 % of
the harmless requests (29 to 48), before none of either: it has learnt to decline, and not what.
"""

from pathlib import Path

from jaxtrain.evaluate.bias import BiasConfig
from jaxtrain.evaluate.run import EvaluateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = EvaluateConfig(
    models={"fine-tuned": "runs/quickstart/5_finetune", "with refusals": f"{RUNS}/4_finetune"},
    tasks=(),
    bias=BiasConfig(folder="data/refusals"),
    out=f"{RUNS}/5_evaluate",
)
