"""Comparisons to a reward model, and a policy that it improves (RLHF).

In: rate's comparisons, a finetune artifact. Out: checkpoints, metrics, samples.
losses.py         of policies, preferences and reward models, as pure functions of arrays
preference_losses.py  those of preferences and reward models
reward_model.py   RewardModel, and its training from comparisons
rollout.py        sampled answers with their log-probabilities, values and rewards
ppo.py            PPO against a reward model, with a KL penalty to the fine-tuned model
run.py            RewardConfig or PPOConfig: the config's type picks the entry
"""
