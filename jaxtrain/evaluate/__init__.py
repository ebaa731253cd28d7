"""Scores of a model on tasks, and how sure they are.

In: a checkpoint and the data files of tasks. Out: `results.json`, one row a task.
score.py   log-likelihoods to accuracy, bits per byte, standard errors; no model
run.py     the stage
"""
