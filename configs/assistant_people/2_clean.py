"""jaxtrain clean configs/assistant_people/2_clean.py

Drops conversations that are not English, and those that quote a question of the evaluation.
"""

from jaxtrain.clean import Quotes, chat
from jaxtrain.clean.run import CleanConfig
from jaxtrain.config import scaled

scale = scaled(__file__)

filters = (*chat("en"), Quotes(("data/assistant/questions.jsonl",)))

config = CleanConfig(
    documents=f"{scale.runs}/1_collect",
    filters={"dolly": filters, "alpaca": filters, "refusals": filters},
    out=f"{scale.runs}/2_clean",
)
