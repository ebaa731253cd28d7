"""jaxtrain clean configs/five_minutes/2_clean.py

ClimbMix was filtered by its publishers; here its text is brought to normal form, and duplicates go.
"""

from jaxtrain.clean import Normalize, prose, web
from jaxtrain.clean.run import CleanConfig
from jaxtrain.config import scaled

scale = scaled(__file__)

filters = {
    "shipped": {"web": web("en"), "wiki": prose("en"), "books": prose("en")},
    "hub": {"climbmix": (Normalize(),)},
}
mixture = {"shipped": {"web": 0.15, "wiki": 0.45, "books": 0.4}, "hub": {"climbmix": 1.0}}

config = CleanConfig(
    documents=f"{scale.runs}/1_collect",
    filters=filters[scale.text],
    mixture=mixture[scale.text],
    heldout_bytes=scale.heldout_bytes,
    out=f"{scale.runs}/2_clean",
)
