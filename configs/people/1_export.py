"""jaxtrain rate configs/people/1_export.py

People compare answers, a reward model learns from them, PPO from it. First `jaxtrain rate sample --models
runs/quickstart/5_finetune --conversations runs/quickstart/2_clean`, then `jaxtrain rate serve --invite ann
ben`, whose links you send them; when they have rated, `jaxtrain run configs/people`. Run again, it takes in
what has been rated since. 60 comparisons tell a reward model nothing, 1,000 begin to.
"""

from pathlib import Path

from jaxtrain.rate.run import ExportConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = ExportConfig(database="ratings.sqlite", out=f"{RUNS}/1_export")
