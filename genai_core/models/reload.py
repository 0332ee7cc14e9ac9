"""A script, not a module of the house: load a folder as a stranger would and write down what it says.

    python reload.py FOLDER REQUEST.json ANSWER

    REQUEST       {"gguf_file": "" or a file in FOLDER, "prompts": [...], "texts": [...]}
    ANSWER.json   {"prompt_ids": [[...], ...], "reply_ids": [...] to the first prompt, "text_ids": [[...], ...]};
                  an encoder gives no reply
    ANSWER.npz    logits of each prompt, float32, (T, V), by its number

Imports nothing of genai: what it needs beside transformers would be missing at the user's.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer


def main(folder: str, request_file: str, answer: str) -> None:
    """Write both files of the answer."""
    with open(request_file, encoding="utf-8") as handle:
        request = json.load(handle)
    torch.manual_seed(0)
    gguf: Any = {"gguf_file": request["gguf_file"]} if request["gguf_file"] else {}
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **gguf)
    classes = [] if gguf else AutoConfig.from_pretrained(folder, trust_remote_code=False).architectures or []
    is_encoder = any(name.endswith("ForMaskedLM") for name in classes)
    kind: Any = AutoModelForMaskedLM if is_encoder else AutoModelForCausalLM
    model: Any = kind.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, **gguf).eval()
    prompts = [encode(tokenizer, prompt) for prompt in request["prompts"]]
    with torch.no_grad():
        logits = [model(input_ids=prompt["input_ids"]).logits[0] for prompt in prompts]
        reply = [] if is_encoder else continue_prompt(model, prompts[0])
    told = {
        "prompt_ids": [prompt["input_ids"][0].tolist() for prompt in prompts],
        "reply_ids": reply,
        "text_ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in request["texts"]],
    }
    with open(f"{answer}.json", "w", encoding="utf-8") as handle:
        json.dump(told, handle)
    np.savez(f"{answer}.npz", **{str(number): found.numpy() for number, found in enumerate(logits)})


def continue_prompt(model: Any, prompt: Any) -> list[int]:
    """Return the first few tokens of the most likely answer."""
    whole = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    ids: list[int] = whole[0, prompt["input_ids"].shape[1] :].tolist()
    return ids


def encode(tokenizer: Any, prompt: str) -> Any:
    """Return a prompt as model inputs, under the chat template where there is one."""
    if not tokenizer.chat_template:
        return tokenizer(prompt, return_tensors="pt")
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
