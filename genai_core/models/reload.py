"""A script, not a module of the house: load a published folder as a stranger would and write down what it says.

    python reload.py FOLDER RESULT.json

Imports nothing of genai: what it needs beside transformers would be missing at the user's.
"""

import json
import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = "What does textwrap.shorten do?"


def main(folder: str, result: str) -> None:
    """Write {"ids", "logits" of the last position, "reply_ids", "generates"} for a fixed question."""
    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        logits = model(input_ids=chat["input_ids"]).logits[0, -1]
        reply = model.generate(**chat, max_new_tokens=8, do_sample=False)[0, chat["input_ids"].shape[1] :]
    answer = {"ids": chat["input_ids"][0].tolist(), "logits": logits.tolist(), "reply_ids": reply.tolist()}
    with open(result, "w", encoding="utf-8") as handle:
        json.dump(answer, handle)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
