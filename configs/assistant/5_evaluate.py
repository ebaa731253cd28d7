"""jaxtrain evaluate configs/assistant/5_evaluate.py

The same 241 questions before and after, answered greedily. Result in four minutes of processor time: 63.5 %
before (standard error 3.1), 68.9 % after (3.0). Ten more, which nothing grades, are answered for the report.
"""

from pathlib import Path

from jaxtrain.evaluate.run import EvaluateConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = EvaluateConfig(
    models={"SmolLM2": "smollm2_135m", "assistant": f"{RUNS}/4_finetune"},
    benchmarks="data/assistant",
    tasks=("data/assistant/task.py",),
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
    ),
    out=f"{RUNS}/5_evaluate",
)
