"""Text from a model.

In: a Transformer and prompts. Out: sampled tokens.

slots.py      keys and values, every row at its own place
sampling.py   choosing the next token
scoring.py    how likely given tokens are
generate.py   a whole batch inside one program
answers.py    many conversations at once; samples.jsonl
dialogues.py  turns with a world and its tools: token in, token out
request.py    what is asked, and what has come of it
prefixes.py   which ids each row holds, to be shared
drafts.py     guesses at what comes next
programs.py   what the scheduler runs on the device
scheduler.py  continuous batching: requests that come and go
"""
