"""jaxtrain report configs/assistant/6_report.py

One page: what was kept of the conversations, the loss, ten answers before and after, the questions.
"""

from pathlib import Path

from jaxtrain.report.run import ReportConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = ReportConfig(run=RUNS, out=f"{RUNS}/6_report")
