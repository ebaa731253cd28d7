"""jaxtrain evaluate configs/speedrun/8_evaluate.py

nanochat's tasks after every training. CORE is measured where its bundle is unpacked in data/eval_bundle:
https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip.
"""

from pathlib import Path

from jaxtrain.config import scaled
from jaxtrain.evaluate.core import CoreConfig
from jaxtrain.evaluate.run import EvaluateConfig

scale = scaled(__file__)
bundle = "data/eval_bundle"

config = EvaluateConfig(
    models={
        "pretrained": f"{scale.runs}/4_pretrain",
        "midtrained": f"{scale.runs}/5_midtrain",
        "finetuned": f"{scale.runs}/6_finetune",
        "grpo": f"{scale.runs}/7_grpo",
    },
    clean=f"{scale.runs}/2_clean",
    data=f"{scale.runs}/3_tokenize",
    benchmarks=scale.benchmarks,
    tasks=("arc_easy", "arc_challenge", "mmlu", "gsm8k_chat"),
    items=scale.items,
    core=CoreConfig(folder=bundle if Path(bundle).is_dir() else ""),
    out=f"{scale.runs}/8_evaluate",
)
