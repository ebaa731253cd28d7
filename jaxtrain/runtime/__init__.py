"""The floor under every stage: mesh, checkpoints, metrics, progress, cost. It knows no stage.

In: plain values and pytrees. Out: plain values and pytrees.
errors.py       UserError, the one exception that the command line prints as one line
progress.py     a progress bar on a terminal, plain lines in a log
mesh.py         make and set the device mesh
checkpoint.py   Orbax: save async, restore onto any mesh
metrics.py      metrics.jsonl, written one step late
cost.py         FLOPs of a token, joules of a second
"""
