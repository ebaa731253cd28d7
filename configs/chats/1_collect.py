"""jaxtrain collect configs/chats/1_collect.py

Your own conversations, to fine-tune a model that others published. Put them into `chats.jsonl`, a line each:
messages of role and content, or another format of docs/formats.md (1 collect). Put the model's Hugging Face
folder beside it as `model`. Then `jaxtrain run configs/chats` and `jaxtrain chat runs/chats/4_finetune`.
"""

from pathlib import Path

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CollectConfig(
    sources=(ChatSource(name="chats", paths=("chats.jsonl",)),),
    out=f"{RUNS}/1_collect",
)
