"""jaxtrain clean configs/assistant/2_clean.py

Drops conversations that are not English, and those that quote a question of the evaluation.
"""

from pathlib import Path

from jaxtrain.clean import Quotes, chat
from jaxtrain.clean.run import CleanConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

filters = (*chat("en"), Quotes(("data/assistant/questions.jsonl",)))

config = CleanConfig(
    documents=f"{RUNS}/1_collect",
    filters={"dolly": filters, "alpaca": filters},
    out=f"{RUNS}/2_clean",
)
