"""jaxtrain rate configs/assistant_people/5_rate.py

What people judged: 2,303 pairs of answers of an early assistant, of which the less harmful one was chosen.
A third of the prompts is held out, by their hashes: 707 pairs. Your own raters' comparisons take their place
with `database="ratings.sqlite"` (configs/people says how they come about).
"""

from jaxtrain.config import scaled
from jaxtrain.rate.people import ExportConfig

scale = scaled(__file__)

config = ExportConfig(
    database="data/people/harmless_base.jsonl.gz", heldout_share=0.33, out=f"{scale.runs}/5_rate"
)
