"""jaxtrain report configs/tiny/10_report.py

The whole run on one page, `runs/tiny/10_report/report.html`, in three seconds.
"""

from pathlib import Path

from jaxtrain.report.run import ReportConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = ReportConfig(
    collect=f"{RUNS}/1_collect",
    clean=f"{RUNS}/2_clean",
    tokenize=f"{RUNS}/3_tokenize",
    pretrain=f"{RUNS}/4_pretrain",
    finetune=f"{RUNS}/5_finetune",
    rate=f"{RUNS}/6_rate",
    reward=f"{RUNS}/7_reward",
    ppo=f"{RUNS}/8_ppo",
    evaluate=f"{RUNS}/9_evaluate",
    out=f"{RUNS}/10_report",
)
