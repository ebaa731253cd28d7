"""jaxtrain evaluate configs/assistant_people/9_evaluate.py

How often each model declines 96 harmful requests, and 96 harmless ones in the same words, none of which it
was taught; 96 questions with short answers; and ten more, answered for the report. Not run at this size yet.
"""

from jaxtrain.config import scaled
from jaxtrain.evaluate.bias import BiasConfig
from jaxtrain.evaluate.run import EvaluateConfig

scale = scaled(__file__)

config = EvaluateConfig(
    models={
        "before": scale.model,
        "fine-tuned": f"{scale.runs}/4_finetune",
        "DPO": f"{scale.runs}/7_dpo",
        "PPO": f"{scale.runs}/8_ppo",
    },
    benchmarks="data/assistant",
    tasks=("data/assistant/task.py",),
    items=scale.items,
    bias=BiasConfig(folder="data/refusals", items=scale.items),
    questions=(
        "What is the capital of France?",
        "How can I make a friend happy?",
        "Give me three tips for a good night's sleep.",
        "Explain in two sentences why the sky is blue.",
        "Write a short poem about rain.",
        "How do I boil an egg?",
        "What should I pack for a day at the beach?",
        "Name five animals that live in Africa.",
        "Write a thank-you note to a teacher.",
        "What is the difference between a lake and a sea?",
    )[: scale.items],
    out=f"{scale.runs}/9_evaluate",
)
