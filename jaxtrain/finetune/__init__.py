"""A language model to one that answers.

In: a pretrain artifact or Hugging Face folder, and the conversations of a tokenize artifact.
Out: checkpoint (of all weights, or of adapters), metrics, samples.
run.py   FinetuneConfig, run()
"""
