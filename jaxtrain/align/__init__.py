"""Comparisons to a reward model, and a policy that it improves (RLHF).

In: rate's comparisons, a finetune artifact. Out: checkpoints, metrics, samples.
losses.py         of policies, preferences and reward models, as pure functions of arrays
preference_losses.py  its part on preferences and reward models
reward_model.py   RewardModel, and its training from comparisons
rollout.py        sampled answers with their log-probabilities, values and rewards
ppo.py            PPO against a reward model, with a KL penalty to the fine-tuned model
preference.py     DPO and its kin: a policy from comparisons, without a reward model
run.py            RewardConfig, PPOConfig, PreferenceConfig: the config's type picks the entry
"""
