"""Comparisons to a reward model, and a policy that it improves (RLHF).

In: comparisons or tasks whose answers are graded, a finetune artifact. Out: checkpoints, metrics, samples.
losses.py         of policies and students, as pure functions of arrays
preference_losses.py  of preferences and reward models
comparisons.py    a rate artifact, or a file of preferences, as rows for a model
reward_model.py   RewardModel, and its training from comparisons
judged.py         how well scores order comparisons, beside length and ceiling; calibration
scorer.py         a reward model for others: behind HTTP, as a Hugging Face folder
heads.py          modules around transformers: the policy with its value head, the reward model
rollout.py        sampled answers with their log-probabilities, values and rewards
rounds.py         rounds of sampling, from which the next three take their batches
ppo.py            PPO against reward models, with a KL penalty to the fine-tuned model
grpo.py           GRPO and its kin, on tasks whose answers are graded
practice.py       tasks as they are practised
best.py           the best of several answers, to fine-tune on
distill.py        a student held against its teacher on its own answers
monitor.py        is the reward still worth having
preference.py     DPO and its kin: a policy from comparisons, without a reward model
run.py            the config's type picks the entry
"""
