"""jaxtrain report configs/tiny/10_report.py

The whole run on one page, `runs/tiny/10_report/report.html`, in three seconds.
"""

from jaxtrain.report.run import ReportConfig

config = ReportConfig(
    collect="runs/tiny/1_collect",
    clean="runs/tiny/2_clean",
    tokenize="runs/tiny/3_tokenize",
    pretrain="runs/tiny/4_pretrain",
    finetune="runs/tiny/5_finetune",
    rate="runs/tiny/6_rate",
    reward="runs/tiny/7_reward",
    ppo="runs/tiny/8_ppo",
    evaluate="runs/tiny/9_evaluate",
    out="runs/tiny/10_report",
)
