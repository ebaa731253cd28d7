"""Language models to numbers with standard errors.

In: finished models, benchmark items, held-out text. Out: results.json.
score.py     what grades make of log-likelihoods; bits per byte, xz
choices.py   log-likelihoods of the choices of benchmark items
run.py       EvaluateConfig, run()
"""
