"""The floor under every stage: mesh, checkpoints, metrics, progress, cost. It knows no stage.

In: plain values and pytrees. Out: plain values and pytrees.
errors.py       UserError, the one exception that the command line prints as one line
progress.py     a progress bar on a terminal, plain lines in a log
terminal.py     text of strangers on a terminal
web.py          what every HTTP server asks of strangers
mesh.py         make and set the device mesh
checkpoint.py   Orbax: save async, verify, restore onto any mesh
compiled.py     keep what XLA compiled; its options by device
cluster.py      many hosts: who they are, by the scheduler's environment
distributed.py  many hosts: how they join and wait, what any of them wishes
signals.py      SIGTERM and SIGINT
watchdog.py     end what hangs
profile.py      a trace of some steps as a table
metrics.py      metrics.jsonl, written one step late
trackers.py     TensorBoard, W&B, MLflow, Trackio
cost.py         FLOPs of a token, joules of a second
energy.py       counters of accelerators and processors
files.py        files that survive a power cut; JSON files
limits.py       between which numbers a field's value lies
"""
