"""jaxtrain evaluate configs/five_minutes/5_evaluate.py

Bits per byte of all text that was held out, beside `xz -9e`. It is our own held-out text: a figure of another
program counts beside it where that reads the same bytes.
"""

from jaxtrain.config import scaled
from jaxtrain.evaluate.run import EvaluateConfig

scale = scaled(__file__)

config = EvaluateConfig(
    models={"pretrained": f"{scale.runs}/4_pretrain"},
    clean=f"{scale.runs}/2_clean",
    data=f"{scale.runs}/3_tokenize",
    tasks=(),
    out=f"{scale.runs}/5_evaluate",
)
