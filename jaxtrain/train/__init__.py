"""What every training stage shares: state, one jitted step, one visible loop.

In: a model, a loss, batches that are a function of the step. Out: checkpoints and metrics.jsonl.
state.py       TrainState: step, model, optimizer state, guard
losses.py      log-probabilities of targets in chunks; token cross-entropy
optimizer.py   AdamW, Muon, Lion, Adafactor; the learning rate over the steps
muon.py        Muon for sharded weights
guard.py       which steps are accepted
step.py        gradient, accumulation, clip, guard, update
heldout.py     which evaluation was best, overfitting, when to stop
incident.py    what is kept of a refused step
replay.py      silent corruption
pace.py        lines of speed
loop.py        batches, steps, checkpoints, evaluation, samples
"""
