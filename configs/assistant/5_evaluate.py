"""jaxtrain evaluate configs/assistant/5_evaluate.py

The same 241 questions before and after, answered greedily. Result in four minutes on two busy cores: 63.5 %
before (standard error 3.1), 71.4 % after (2.9).
"""

from pathlib import Path

from jaxtrain.evaluate.run import EvaluateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = EvaluateConfig(
    models={"SmolLM2": "smollm2_135m", "assistant": f"{RUNS}/4_finetune"},
    benchmarks="data/assistant",
    tasks=("data/assistant/task.py",),
    out=f"{RUNS}/5_evaluate",
)
