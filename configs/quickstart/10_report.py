"""jaxtrain report configs/quickstart/10_report.py

Puts the whole run on one page that opens offline, `runs/quickstart/10_report/report.html`, and its numbers
in `results.json` beside it. Result in about five seconds: from the data funnel to benchmarks, with what each
number is to be read beside (xz, chance, length, the ceiling), samples of each stage, and what it cost.
"""

from pathlib import Path

from jaxtrain.report.run import ReportConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = ReportConfig(run=RUNS, out=f"{RUNS}/10_report")
