"""The other side of benchmarks/decode.py: reads a batch size a line, prints the seconds that generate took.

python benchmarks/peers/decode_transformers.py FOLDER PROMPT NEW
"""

import json
import sys
import time

import torch  # pyrefly: ignore[missing-import]
from transformers import AutoModelForCausalLM  # pyrefly: ignore[missing-import]


def main() -> None:
    folder, prompt, new = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    options = {"do_sample": False, "pad_token_id": 0, "min_new_tokens": new, "max_new_tokens": new}
    for line in sys.stdin:
        ids = torch.randint(1, model.config.vocab_size, (int(line), prompt))
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                **options | {"min_new_tokens": 2, "max_new_tokens": 2},
            )
            begun = time.perf_counter()
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        print(json.dumps(time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
