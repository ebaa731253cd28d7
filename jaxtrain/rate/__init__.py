"""Raters compare answers; what they prefer becomes training data for a reward model.

In: prompts and a checkpoint that answers them. Out: `ratings.sqlite`, `train.parquet`, `heldout.parquet`.
store.py       the database: who rates what next, and what was said
tables.py      its tables
agreement.py   do raters agree, and does the side on the screen sway them
run.py         the stage: sample answers, let simulated raters rank them, export
"""
