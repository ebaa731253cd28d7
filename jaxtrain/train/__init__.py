"""What every training stage shares: one config, one context, one jitted step, one visible loop.

In: a learner, a loss, a feed of batches, an evaluation. Out: checkpoints and metrics.jsonl.
config.py      TrainConfig, the field `train` of seven configs, with its OptimizerConfig
context.py     what surrounds the steps: processes, mesh, checkpoints, log, signals
learner.py     which weights of a module learn, and which stay
state.py       TrainState: step, model, optimizer state, guard
losses.py      log-probabilities of targets in chunks; token cross-entropy
optimizer.py   AdamW, Muon, Lion, Adafactor; the learning rate over the steps
guard.py       which steps are accepted
step.py        gradient, accumulation, clip, guard, update
heldout.py     the held-out loss; which evaluation was best, overfitting, when to stop
replay.py      silent corruption
pace.py        where the wall time went, lines of speed
recovery.py    refused steps and wrong bits: what is kept of them, going back, leaving batches out
loop.py        train: batches, steps, evaluations, checkpoints
"""
