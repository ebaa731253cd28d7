"""Answers compared by raters, in a database.

In: a finetune artifact and clean conversations. Out: ratings.sqlite, train.parquet, heldout.parquet.
store.py       the ratings database: prompts, answers, tasks, raters, judgements (tables.py: its tables)
sampling.py    answers of a model
agreement.py   do raters agree, and do they favour the left side
overview.py    that, which checkpoint they like best, and each rater's work, for the administrator
exchange.py    comparisons out and in: Parquet and JSON lines, TRL's and hh-rlhf's
app.py         rate serve: the web page on which people rate (templates/)
people.py      rate sample, import, export
run.py         RateConfig, run(): answers sampled and ranked by simulated raters
"""
