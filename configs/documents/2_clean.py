"""jaxtrain clean configs/documents/2_clean.py

Running text in any language; `prose("en")` keeps English alone. Some 20 kB are held out: lower
`heldout_bytes` where there is little text. `dropped/` has what is left out, each with its reason.
"""

from pathlib import Path

from jaxtrain.clean import prose
from jaxtrain.clean.run import CleanConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CleanConfig(
    documents=f"{RUNS}/1_collect",
    filters={"texts": prose()},
    mixture={"texts": 1.0},
    heldout_bytes=20_000,
    out=f"{RUNS}/2_clean",
)
