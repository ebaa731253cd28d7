"""Token records to a language model.

In: a tokenize artifact. Out: checkpoint, metrics, samples (`docs/formats.md`).
run.py      PretrainConfig, run()
recipe.py   a config from the depth alone
"""
