"""What an export is made of: its format, its base, and how to load it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.weights_files import file_dtype
from lowmem_rl.errors import ConfigError, UnknownName
from lowmem_rl.export.proof import Kind
from lowmem_rl.models.lookup import TINY, load_shape
from lowmem_rl.prompts import conversation
from lowmem_rl.reports.escape import one_line

Format = Literal["adapter", "weights", "merged", "gguf"]
BaseKind = Literal["dequantised", "16bit"]

_LOAD_MERGED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # of this file
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
"""
_LOAD_ADAPTER = """\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

folder = "."  # of this file
{quantization}base = AutoModelForCausalLM.from_pretrained({base}, dtype={dtype}{argument})
model = PeftModel.from_pretrained(base, folder)
"""
_LOAD_WEIGHTS = """\
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # of this file
model = AutoModelForCausalLM.from_pretrained({base}, dtype={dtype})
for file in Path(folder).glob("model-*.safetensors"):
    model.load_state_dict(load_file(file), strict=False)
"""
_QUANTIZATION = """\
quantization = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype={dtype},
)
"""
_QUANTIZED = ", quantization_config=quantization"
_ASK = """\
tokenizer = AutoTokenizer.from_pretrained(folder)
prompt = {prompt}
ids = tokenizer.apply_chat_template(
    prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(model.device)
out = model.generate(**ids, do_sample=False, repetition_penalty=1.0, max_new_tokens=512)
print(tokenizer.decode(out[0][ids["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """One export's format; `base` is what the adapter is merged into, None for an adapter or whole weights alone."""

    to: Format
    base: BaseKind | None
    base_name: str
    """As in the run's configuration."""
    bits: int
    """Of the frozen weights in training."""
    compute_dtype: str
    """Of activations and adapter on this machine."""
    convention: str
    """Of the prompts in training, a name in `prompts.CONVENTIONS`."""
    revision: str | None = None
    """Of the base."""
    is_whole: bool = False
    """Whole weights learned, not an adapter."""
    adapter: str = "LoRA"
    """The kind of adapter."""
    asked: tuple[dict[str, Any], ...] = ()
    """The turns of such a prompt, as the model's chat template takes them."""

    @property
    def kind(self) -> Kind:
        """What the proof compares: tokens if the export holds the weights that were trained."""
        other_weights = (self.base == "16bit" or self.to == "weights") and self.bits == 4
        return "accuracy" if other_weights or self.to == "gguf" else "tokens"

    @property
    def loaded_by(self) -> str:
        """What a receiver, and so the proof, loads it with."""
        if self.to == "weights":
            return "transformers and safetensors, without peft and Unsloth"
        return "llama.cpp" if self.to == "gguf" else "transformers and peft, without Unsloth"

    @property
    def weights_dtype(self) -> str:
        """The 16-bit type of whole weights in files."""
        return file_dtype(self.compute_dtype)

    @property
    def rounded_to(self) -> str | None:
        """The type to which whole weights are rounded before the proof asks them, if tokens are to be the same."""
        return self.weights_dtype if self.to == "weights" and self.kind == "tokens" else None

    @property
    def hub_name(self) -> str | None:
        """The base's name, if others can download it."""
        return None if self.base_name == TINY or Path(self.base_name).exists() else self.base_name

    @property
    def what(self) -> str:
        """What is in the folder, and on which base."""
        name = f"`{one_line(self.base_name).replace('`', '')}`"
        frozen = "in 4 bit (NF4)" if self.bits == 4 else "in 16 bit"
        learned = "The whole weights that learned, put" if self.is_whole else "The adapter merged"
        match self.to, self.base:
            case "weights", _:
                into = f"the 16-bit original of {name}, with which they were not trained" if self.bits == 4 else name
                return f"The whole weights that learned, rounded to {self.weights_dtype}, to put into {into}"
            case "adapter", _:
                return f"A {self.adapter} adapter on {name} {frozen}, as it was trained"
            case _, "dequantised":
                return f"{learned} into {name} as it was in training: 4-bit weights, expanded again"
            case _, _ if self.bits == 4:
                return f"{learned} into the 16-bit original of {name}, under which it was not trained"
            case _:
                return f"{learned} into {name}, on whose 16-bit weights training began"

    @property
    def usage(self) -> str:
        """How to load and ask it, in Markdown."""
        if self.to == "gguf":
            return "```\nllama-cli -m model.gguf --temp 0\n```"
        ask = _ASK.format(prompt=json.dumps(self.asked or conversation("...", self.convention)))
        if self.to == "merged":
            return f"```python\n{_LOAD_MERGED}{ask}```"
        dtype, base = f"torch.{self.compute_dtype}", json.dumps(one_line(self.base_name, 200))
        quantization, argument = (_QUANTIZATION.format(dtype=dtype), _QUANTIZED) if self.bits == 4 else ("", "")
        named = f"{base}, revision={json.dumps(self.revision)}" if self.revision else base
        if self.to == "weights":
            load = _LOAD_WEIGHTS.format(base=named, dtype=dtype)
        else:
            load = _LOAD_ADAPTER.format(quantization=quantization, base=named, dtype=dtype, argument=argument)
        note = "" if self.hub_name else "\n\nThe base is not on a hub: take the folder that the run was trained from."
        return f"```python\n{load}{ask}```{note}"


def make_spec(config: RunConfig, device: Device, to: str, base: str | None) -> ExportSpec:
    """Returns the requested export. Raises `UnknownName`, or `ConfigError` for a base that it cannot have."""
    for kind, name, known in (("export format", to, get_args(Format)), ("base", base, get_args(BaseKind))):
        if name is not None and name not in known:
            raise UnknownName(kind, name, known)
    bits, fix = (16 if config.model.bits == 16 else 4), "Leave --base out"
    is_whole = config.trainable.method == "full"
    if base is not None and to in ("adapter", "weights"):
        what = "an adapter" if to == "adapter" else "whole weights"
        raise ConfigError(f"--base does not apply to {what}.", hint=f"{fix}, or use --to merged.")
    if to in ("adapter", "weights"):
        _check_learned(config, device, to)
    if base == "dequantised" and bits == 16:
        raise ConfigError("The run was trained on 16-bit weights: there is nothing to dequantise.", hint=f"{fix}.")
    merged_into = None if to in ("adapter", "weights") else base or ("dequantised" if bits == 4 else "16bit")
    return ExportSpec(
        to,  # type: ignore[arg-type]  # checked
        merged_into,  # type: ignore[arg-type]  # checked
        config.model.name,
        bits,
        device.dtype,
        config.task.prompt,
        config.model.revision,
        is_whole,
        "TinyLoRA" if config.adapter.peft_type == "tinylora" else "DoRA" if config.adapter.use_dora else "LoRA",
    )


def _check_learned(config: RunConfig, device: Device, to: str) -> None:
    """Raises `ConfigError` if the run has learned no such thing, or one that others cannot put on its base."""
    is_whole = config.trainable.method == "full"
    if is_whole and to == "adapter":
        raise ConfigError("The run has no adapter: whole weights learned.", hint="Use --to weights, or --to merged.")
    if not is_whole and to == "weights":
        raise ConfigError("The run has no whole weights: an adapter learned.", hint="Use --to adapter, or --to merged.")
    is_bare = config.model.bits == 16 and device.dtype == "float32"
    if config.adapter.peft_type == "tinylora" and not (is_whole or is_bare):
        what = "PEFT 0.21 computes a TinyLoRA adapter over weights in float32 alone: nobody else could load this one."
        raise ConfigError(what, hint="Use --to merged.")
    if is_whole and load_shape(config.model.name, config.model.revision).quantised != "no":
        what = f"{config.model.name} is stored in 4 bit: there is no 16-bit original of it to load the weights into."
        raise ConfigError(what, hint="Use --to merged.")
