"""jaxtrain finetune configs/speedrun/5_midtrain.py

Mid-training: all conversations, and the tasks of MMLU and GSM8K as conversations, at a tenth of the rate of
pretraining: about one pass.
"""

from jaxtrain.config import scaled
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

scale = scaled(__file__)

config = FinetuneConfig(
    model=f"{scale.runs}/4_pretrain",
    data=f"{scale.runs}/3_tokenize",
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=2e-4, warmup_steps=5, schedule="linear", final_lr_share=0.1),
        mesh=MeshConfig(fsdp=-1),
        dtype=scale.dtype,
        steps=scale.midtrain_steps,
        microbatches=scale.microbatches,
        evaluate_every=200,
        checkpoint_every=200,
    ),
    batch_size=scale.batch_size,
    heldout_share=0.01,
    out=f"{scale.runs}/5_midtrain",
)
