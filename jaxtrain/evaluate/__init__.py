"""Language models to numbers with standard errors.

In: finished models, benchmark items, held-out text. Out: results.json.
likelihood.py     log-likelihoods of continuations; a shared context is read once
choices.py        items as ids: how likely choices are, answers written out
benchmarks.py     a task's row: score, error, chance; its quoted items apart; the aggregate
core.py           DCLM's CORE from its bundle
heldout.py        bits per byte by source and language, beside xz; perplexity by position
memorization.py   extraction and canaries
bias.py           stereotypes, toxicity, refusals and too many of them; whom the corpus names
harness.py        lm-eval on our models (extra `eval`)
run.py            EvaluateConfig, run()
"""
