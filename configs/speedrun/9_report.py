"""jaxtrain report configs/speedrun/9_report.py

The whole run on one page. Then `jaxtrain chat runs/speedrun-d20/7_grpo`, or `jaxtrain serve` with it.
"""

from jaxtrain.config import scaled
from jaxtrain.report.run import ReportConfig

scale = scaled(__file__)

config = ReportConfig(run=scale.runs, out=f"{scale.runs}/9_report")
