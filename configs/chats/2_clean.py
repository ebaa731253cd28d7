"""jaxtrain clean configs/chats/2_clean.py

Conversations in any language, without addresses and numbers of people. No documents, so no mixture.
"""

from pathlib import Path

from jaxtrain.clean import chat
from jaxtrain.clean.run import CleanConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CleanConfig(documents=f"{RUNS}/1_collect", filters={"chats": chat()}, out=f"{RUNS}/2_clean")
