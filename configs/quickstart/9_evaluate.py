"""jaxtrain evaluate configs/quickstart/9_evaluate.py

Measures every model of the run on benchmarks and on held-out text. Result in a minute on two cores: all near
chance on ARC-Easy, PIQA and WinoGrande, with standard errors of 3 points; bits per byte beside `xz -9e`.

More, each for its own time: `--contamination True` (items that training quotes), `--unconditional True`,
`--memorization.sequences 32`, `--bias.folder FOLDER`, `--harness hellaswag,arc_easy`, `--items 10000`.
"""

from pathlib import Path

from jaxtrain.evaluate.run import EvaluateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = EvaluateConfig(
    models={
        "pretrained": f"{RUNS}/4_pretrain",
        "fine-tuned": f"{RUNS}/5_finetune",
        "PPO": f"{RUNS}/8_ppo",
    },
    clean=f"{RUNS}/2_clean",
    data=f"{RUNS}/3_tokenize",
    benchmarks="data/quickstart",
    items=250,
    out=f"{RUNS}/9_evaluate",
)
