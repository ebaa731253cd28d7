"""jaxtrain grpo configs/gsm8k_grpo/1_grpo.py

Grade-school maths with a 1.5-billion model of Qwen2.5's shape, for one 80 GB GPU and up.
It needs what no package brings:

    jaxtrain convert Qwen2.5-1.5B-Instruct runs/gsm8k_grpo/model    (with its tokenizer)
    data/hub/benchmarks/gsm8k_train.jsonl and gsm8k_test.jsonl    (of openai/grade-school-math, MIT)

What it takes: `jaxtrain plan configs/gsm8k_grpo/1_grpo.py --topology h100:1`, by the shapes in `model.json`
beside this file. Not run yet. Published for this model with GRPO and adapters (verl's baselines): 77.9 % of
the test problems. Adapters learn at ten times the rate of whole weights (Schulman et al. 2025, "LoRA without
regret"); `--lora.rank 0 --train.optimizer.lr 1e-6` trains the whole weights instead, with a copy of the
first policy beside them.
"""

from pathlib import Path

from jaxtrain.align.run import GRPOConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = GRPOConfig(
    model=f"{RUNS}/model",
    tasks=("gsm8k_chat",),
    data="data/hub",
    kind="dapo",
    advantage="dr_grpo",
    clip_high=0.28,
    lora=LoRAConfig(rank=32),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=1e-5, warmup_steps=10, schedule="constant", weight_decay=0.0),
        mesh=MeshConfig(fsdp=-1),
        steps=400,
        microbatches=16,
        dtype="bfloat16",
        remat="full",
        evaluate_every=100,
        checkpoint_every=100,
    ),
    prompts=128,
    group=8,
    sample_rows=512,
    resample=2,
    minibatches=2,
    longest_prompt=256,
    max_new=400,
    measured=1319,
    out=f"{RUNS}/2_policy",
)
