"""jaxtrain report configs/assistant_people/10_report.py

One page: the reward model beside the length of answers, what DPO and PPO moved, both kinds of mistake, and
answers of all four models side by side.
"""

from jaxtrain.config import scaled
from jaxtrain.report.run import ReportConfig

scale = scaled(__file__)

config = ReportConfig(run=scale.runs, out=f"{scale.runs}/10_report")
