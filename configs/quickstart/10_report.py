"""jaxtrain report configs/quickstart/10_report.py

Puts the whole run on one page that opens offline, `runs/quickstart/10_report/report.html`, and its numbers
in `results.json` beside it. Result in about five seconds: from the data funnel to benchmarks, with what each
number is to be read beside (xz, chance, length, the ceiling), samples of each stage, and what it cost.
"""

from jaxtrain.report.run import ReportConfig

config = ReportConfig(
    collect="runs/quickstart/1_collect",
    clean="runs/quickstart/2_clean",
    tokenize="runs/quickstart/3_tokenize",
    pretrain="runs/quickstart/4_pretrain",
    finetune="runs/quickstart/5_finetune",
    rate="runs/quickstart/6_rate",
    reward="runs/quickstart/7_reward",
    ppo="runs/quickstart/8_ppo",
    evaluate="runs/quickstart/9_evaluate",
    out="runs/quickstart/10_report",
)
