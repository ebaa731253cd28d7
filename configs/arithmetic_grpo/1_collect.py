"""jaxtrain collect configs/arithmetic_grpo/1_collect.py

Reinforcement learning with a verifiable reward, small enough for two cores: `jaxtrain run
configs/arithmetic_grpo` teaches a model 3,000 of the 8,100 additions of two-digit numbers, then lets it
practise the others, knowing only whether an answer is right. `python data/arithmetic/make.py`
wrote the files. Result in a second: 200 documents, 3,000 conversations.
"""

from pathlib import Path

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.tables import TableSource

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CollectConfig(
    sources=(
        TableSource(name="sums", paths=("data/arithmetic/documents.jsonl",), license="CC0-1.0"),
        ChatSource(name="additions", paths=("data/arithmetic/conversations.jsonl",), license="CC0-1.0"),
    ),
    out=f"{RUNS}/1_collect",
)
