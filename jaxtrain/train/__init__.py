"""What every training stage shares: state, one jitted step, one visible loop.

In: a model, a loss, batches that are a function of the step. Out: checkpoints and metrics.jsonl.
state.py       TrainState: step, model, optimizer state, guard
losses.py      log-probabilities of targets in chunks; token cross-entropy
optimizer.py   AdamW with warmup and cosine or linear decay
guard.py       which steps are accepted
step.py        gradient, accumulation, clip, guard, update
loop.py        batches, steps, checkpoints, evaluation, samples
"""
