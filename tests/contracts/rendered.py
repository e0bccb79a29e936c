"""Prompts as transformers renders them: `python -m tests.contracts.rendered`, a line of JSON in and out for each model.

In: a tokenizer's directory, and its prompts. Out: for each prompt the text and its number of tokens. A process of its
own, because Unsloth must be imported before transformers wherever both are.
"""
# ruff: noqa: TID253, T201  # this process exists to load it

import json
import sys

from transformers import AutoTokenizer

for line in sys.stdin:
    folder, prompts = json.loads(line)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts]
    print(json.dumps([(text, len(tokenizer(text, add_special_tokens=False)["input_ids"])) for text in texts]))
