"""What an export is made of: which format, on which base, and how a receiver loads it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.errors import ConfigError, UnknownName
from lowmem_rl.export.proof import Kind
from lowmem_rl.models.lookup import TINY
from lowmem_rl.prompts import conversation
from lowmem_rl.reports.escape import one_line

Format = Literal["adapter", "merged", "gguf"]
BaseKind = Literal["dequantised", "16bit"]


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """One export's format; `base` is what the adapter is folded into, None where it stays apart."""

    to: Format
    base: BaseKind | None
    base_name: str
    """As the run's configuration names it."""
    bits: int
    """Of the frozen weights in training."""
    compute_dtype: str
    """In which activations and adapter are computed on this machine."""
    convention: str
    """Of the prompts that it was trained on, a name of `prompts.CONVENTIONS`."""

    @property
    def kind(self) -> Kind:
        """What the proof is about: tokens where these are the weights that were trained."""
        other_weights = self.base == "16bit" and self.bits == 4
        return "accuracy" if other_weights or self.to == "gguf" else "tokens"

    @property
    def loaded_by(self) -> str:
        """Says what a receiver, and so the proof, loads it with."""
        return "llama.cpp" if self.to == "gguf" else "transformers and peft, without Unsloth"

    @property
    def hub_name(self) -> str | None:
        """The base's name where others can fetch it."""
        return None if self.base_name == TINY or Path(self.base_name).exists() else self.base_name

    @property
    def what(self) -> str:
        """Says what is in the folder, and on which base."""
        name = f"`{one_line(self.base_name).replace('`', '')}`"
        frozen = "in 4 bit (NF4)" if self.bits == 4 else "in 16 bit"
        match self.to, self.base:
            case "adapter", _:
                return f"A LoRA adapter on {name} {frozen}, as it was trained"
            case _, "dequantised":
                return f"The adapter merged into {name} as it stood in training: 4-bit weights, expanded again"
            case _, _ if self.bits == 4:
                return f"The adapter merged into the 16-bit original of {name}, under which it was not trained"
            case _:
                return f"The adapter merged into {name}, on whose 16-bit weights it was trained"

    @property
    def usage(self) -> Iterator[str]:
        """Yields how to load and ask it, in Markdown."""
        if self.to == "gguf":
            yield from ("```", "llama-cli -m model.gguf --temp 0", "```")
            return
        yield "```python"
        yield from _adapter_lines(self) if self.to == "adapter" else _merged_lines()
        yield from _asking_lines(self)
        yield "```"
        if self.to == "adapter" and not self.hub_name:
            yield ""
            yield "The base is no model of a hub: take the folder that the run was trained from."


def form_of(config: RunConfig, device: Device, to: str, base: str | None) -> ExportSpec:
    """Returns the form that is asked for. Raises `UnknownName`, or `ConfigError` for a base that cannot be."""
    if to not in get_args(Format):
        raise UnknownName("export format", to, get_args(Format))
    if base is not None and base not in get_args(BaseKind):
        raise UnknownName("base", base, get_args(BaseKind))
    bits = config.model.bits
    if base is not None and to == "adapter":
        raise ConfigError("An adapter is merged into no base.", hint="Leave --base out, or take --to merged.")
    if base == "dequantised" and bits == 16:
        what = "The run was trained on 16-bit weights: there is nothing to dequantise."
        raise ConfigError(what, hint="Leave --base out.")
    chosen = base or ("dequantised" if bits == 4 else "16bit")
    folded = None if to == "adapter" else chosen
    return ExportSpec(to, folded, config.model.name, bits, device.dtype, config.task.prompt)  # type: ignore[arg-type]  # checked


def _adapter_lines(form: ExportSpec) -> Iterator[str]:
    yield "import torch"
    yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig"
    yield ""
    yield 'folder = "."  # of this file'
    quantized = ""
    if form.bits == 4:
        yield "quantization = BitsAndBytesConfig("
        yield '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,'
        yield f"    bnb_4bit_compute_dtype=torch.{form.compute_dtype},"
        yield ")"
        quantized = ", quantization_config=quantization"
    base = json.dumps(one_line(form.base_name, 200))
    yield f"base = AutoModelForCausalLM.from_pretrained({base}, dtype=torch.{form.compute_dtype}{quantized})"
    yield "model = PeftModel.from_pretrained(base, folder)"


def _merged_lines() -> Iterator[str]:
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield 'folder = "."  # of this file'
    yield 'model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")'


def _asking_lines(form: ExportSpec) -> Iterator[str]:
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    yield f"prompt = {json.dumps(conversation('...', form.convention))}"
    yield "ids = tokenizer.apply_chat_template("
    yield '    prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt"'
    yield ").to(model.device)"
    yield "out = model.generate(**ids, do_sample=False, repetition_penalty=1.0, max_new_tokens=512)"
    yield 'print(tokenizer.decode(out[0][ids["input_ids"].shape[1] :], skip_special_tokens=True))'
