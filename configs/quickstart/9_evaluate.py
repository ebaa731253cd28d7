"""jaxtrain evaluate configs/quickstart/9_evaluate.py

Measures every model of the run on benchmarks and on held-out text. Result in a minute on two cores: all near
chance on ARC-Easy, PIQA and WinoGrande, with standard errors of 3 points; bits per byte beside `xz -9e`.

More, each for its own time: `--contamination True` (items that training quotes), `--unconditional True`,
`--memorization.sequences 32`, `--bias.folder FOLDER`, `--harness hellaswag,arc_easy`, `--items 10000`.
"""

from jaxtrain.evaluate.run import EvaluateConfig

config = EvaluateConfig(
    models={
        "pretrained": "runs/quickstart/4_pretrain",
        "fine-tuned": "runs/quickstart/5_finetune",
        "PPO": "runs/quickstart/8_ppo",
    },
    clean="runs/quickstart/2_clean",
    data="runs/quickstart/3_tokenize",
    benchmarks="data/quickstart",
    items=250,
    out="runs/quickstart/9_evaluate",
)
