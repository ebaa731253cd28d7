"""Answers compared by raters, in a database.

In: a finetune artifact and clean conversations. Out: ratings.sqlite, train.parquet, heldout.parquet.
store.py       the ratings database: prompts, answers, tasks, raters, judgements (tables.py: its tables)
agreement.py   do raters agree, and do they favour the left side
run.py         RateConfig, run(): answers sampled and ranked by simulated raters
"""
