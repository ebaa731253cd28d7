"""Text from a model.

In: a Transformer and prompts. Out: sampled tokens.

slots.py      every row at its own place, layers unrolled
sampling.py   choosing the next token
generate.py   many answers at once
dialogues.py  turns with a world and its tools: token in, token out
scheduler.py  continuous batching: requests that come and go
"""
