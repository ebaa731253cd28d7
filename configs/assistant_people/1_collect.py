"""jaxtrain collect configs/assistant_people/1_collect.py

An assistant that learns from people what to leave alone: `jaxtrain run configs/assistant_people` fine-tunes
SmolLM2-135M-Instruct on conversations and refusals, trains a reward model on comparisons that people made,
improves the assistant on the same comparisons by DPO and against the reward model by PPO, and asks every
model for harmful and for harmless things. The comparisons (data/people/SOURCES.md) quote violent, hateful and
sexual language: do not read them unprepared. The weights are those of configs/assistant, whose first file
says where they come from.

About 85 minutes on two quiet cores by the speed of steps and readings; a stage that was cut short goes on.
DPO, PPO and the evaluation of their models have not been run at this size yet, only at `--scale tiny`.
"""

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.config import scaled

scale = scaled(__file__)

config = CollectConfig(
    sources=(
        ChatSource(
            name="dolly", paths=("data/quickstart/dolly_hhrlhf.jsonl",), license="CC-BY-SA-3.0 AND MIT"
        ),
        ChatSource(name="alpaca", paths=("data/quickstart/alpaca.json",), license="Apache-2.0"),
        ChatSource(name="refusals", paths=("data/refusals/conversations.jsonl",), license="CC0-1.0"),
    ),
    out=f"{scale.runs}/1_collect",
)
