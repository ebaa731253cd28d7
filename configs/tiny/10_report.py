"""jaxtrain report configs/tiny/10_report.py

The whole run on one page, `runs/tiny/10_report/report.html`, in three seconds.
"""

from pathlib import Path

from jaxtrain.report.run import ReportConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = ReportConfig(run=RUNS, out=f"{RUNS}/10_report")
