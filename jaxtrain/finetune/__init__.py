"""A language model to one that answers.

In: a pretrain artifact and the conversations of a tokenize artifact. Out: checkpoint, metrics, samples.
run.py   FinetuneConfig, run()
"""
