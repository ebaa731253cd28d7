"""jaxtrain clean configs/speedrun/2_clean.py

FineWeb-Edu was filtered by its publishers; here its text is brought to normal form, and duplicates go.
"""

from jaxtrain.clean import Normalize, Turns
from jaxtrain.clean.run import CleanConfig
from jaxtrain.config import scaled

scale = scaled(__file__)
chats = (Normalize(), Turns())

config = CleanConfig(
    documents=f"{scale.runs}/1_collect",
    filters={
        "fineweb_edu": (Normalize(),),
        **dict.fromkeys(("smoltalk", "everyday", "mmlu", "gsm8k"), chats),
    },
    mixture={"fineweb_edu": 1.0},
    heldout_bytes=scale.heldout_bytes,
    out=f"{scale.runs}/2_clean",
)
