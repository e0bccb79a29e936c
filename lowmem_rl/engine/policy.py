"""Loads the policy: a model with frozen weights and a LoRA adapter, and its tokenizer.

Everything that differs between a GPU and the CPU is in this file. Unsloth must be imported before trl, transformers and
peft, whose classes it rebinds: call `import_unsloth` before any of them.
"""

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lowmem_rl.chat_templates.prompt_template import PromptTemplate, fit_template
from lowmem_rl.chat_templates.tokenizer_file import check_embedded
from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.peft_model import ModelLike
from lowmem_rl.engine.row_length import SequenceUse, longest_row, training_row, uses_of
from lowmem_rl.engine.threads import ThreadChoice, set_threads
from lowmem_rl.errors import ConfigError, SetupError
from lowmem_rl.example import Message
from lowmem_rl.memory.adapter_tensors import SINGULAR_VECTORS
from lowmem_rl.memory.segments import VARIABLE, allocator_settings
from lowmem_rl.models.fingerprint import base_digests
from lowmem_rl.models.hub import refusal
from lowmem_rl.models.lookup import model_path
from lowmem_rl.stack import not_loaded
from lowmem_rl.storage.cache import cache_dir
from lowmem_rl.storage.run_dir import write_json
from lowmem_rl.trainable.schedule import LayerSchedule

TRAINABLE = "trainable.json"
"""In the folder of whole weights: the section `trainable` with which they learned, and over which base."""


@dataclass(frozen=True)
class Policy:
    """The model that learns, its tokenizer, and where it computes."""

    model: ModelLike
    tokenizer: Any
    device: Device
    template: PromptTemplate
    trainable: TrainableConfig = field(default_factory=TrainableConfig)
    """Which weights learn."""
    longest_row: int | None = None
    """Tokens of the longest row that it was loaded for; None if rows are never cut: on a CPU, in plain transformers."""
    embedded_tokens: int | None = None
    """Rows of the embedding; None if ids are not checked against it."""
    base: dict[str, Any] = field(default_factory=dict)
    """Of whole weights: name, revision, width and digests of the model over which they learn."""
    threads: ThreadChoice | None = None
    """Of a CPU."""

    @property
    def prefill(self) -> str:
        """What the chat template opens the assistant's turn with: a think tag, or an empty string."""
        return self.template.prefill

    def tokenize(self, prompt: Sequence[Message]) -> list[int]:
        """Returns the rendered prompt's token ids; the template itself adds a BOS token, if there is one.

        Raises `TaskError` if the template refuses the prompt.
        """
        return self.encode(self.template.render(prompt))

    def encode(self, text: str) -> list[int]:
        """Returns a text's token ids, without special tokens around it. Raises `SetupError` if one has no embedding."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        self.check_embedded(ids)
        return ids

    def check_embedded(self, ids: Sequence[int]) -> None:
        """Raises `SetupError` if the embedding has no row for one of the ids."""
        if self.embedded_tokens is not None:
            check_embedded(self.template.name, ids, self.embedded_tokens)

    def takes(self, tokens: int) -> bool:
        """Returns whether the model reads a row of `tokens` tokens without cutting it."""
        return self.longest_row is None or tokens <= self.longest_row

    def has_room(self, prompt: Sequence[Message], answer_tokens: int) -> bool:
        """Returns whether the model reads a prompt and an answer of `answer_tokens` tokens without cutting them."""
        return self.longest_row is None or self.takes(len(self.tokenize(prompt)) + answer_tokens)

    def check_row(self, tokens: int) -> None:
        """Raises `ConfigError` if a row has more tokens than the model was loaded for."""
        if not self.takes(tokens):
            raise ConfigError(
                f"A row of {tokens} tokens is longer than {self.longest_row}, the most that the model was loaded for.",
                hint="Ask with a shorter prompt or for fewer tokens, or raise grpo.max_prompt_tokens.",
            )

    def complete(self, ids: Sequence[int]) -> str:
        """Returns the assistant's whole turn: the template's opening, then the sampled tokens."""
        return self.prefill + str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a completion."""
        ids = self.model.generation_config.eos_token_id
        ids = ids if isinstance(ids, list) else [ids]
        return frozenset(i for i in (*ids, self.tokenizer.eos_token_id) if i is not None)

    @contextlib.contextmanager
    def inference(self) -> Iterator[ModelLike]:
        """Yields the model in generation mode, without gradients; afterwards it is in training mode."""
        import torch
        from unsloth import FastLanguageModel

        FastLanguageModel.for_inference(self.model)
        try:
            with torch.inference_mode():
                yield self.model
        finally:
            FastLanguageModel.for_training(self.model)

    @contextlib.contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Leaves training mode only if there is dropout: walking all modules twice costs more than a short forward."""
        configs = self.model.peft_config.values()
        if not self.model.training or not any(map(_dropout_of, configs)):
            yield
            return
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()

    def save_adapter(self, path: Path) -> None:
        """Writes adapter and tokenizer in PEFT's format, with the same bytes in every process."""
        for config in self.model.peft_config.values():
            if isinstance(config.target_modules, set):  # of strings: its order differs from process to process
                config.target_modules = sorted(config.target_modules)
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        if self.trainable.method == "full":  # PEFT's own config has no word for it
            write_json(path / TRAINABLE, self.trainable.model_dump(mode="json") | self.base)


def prepare_process(config: RunConfig, device: Device) -> None:
    """Sets the environment variables that torch and Unsloth read when they are imported."""
    if device.is_gpu:
        # Several visible GPUs break Unsloth's GRPO: use the first one that the user left visible.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
        # NVML, which chose the card, counts by bus; CUDA would count the fastest first.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        if settings := allocator_settings(os.environ, uses_vllm=config.rollout.engine == "vllm"):
            os.environ.setdefault(VARIABLE, settings)
        if device.dtype == "float32":  # Unsloth's checkpointing would keep float32 activations as bfloat16
            os.environ.setdefault("UNSLOTH_OFFLOAD_FP32", "exact")
    # The statistics call downloads a file at import; compiled trainers would be written to the working directory.
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_dir() / "unsloth_compiled"))
    if config.rollout.engine == "vllm":
        os.environ.setdefault("UNSLOTH_VLLM_STANDBY", "1")


def import_unsloth() -> None:
    """Imports Unsloth first of all. Raises `SetupError` if the training stack is missing or does not load."""
    is_collecting = gc.isenabled()
    gc.disable()  # modules are no garbage, and looking for it among them is a quarter of the seconds here
    try:
        import unsloth  # noqa: F401
    except ImportError as error:
        raise (not_loaded(error) or error) from error
    except (NotImplementedError, RuntimeError) as error:
        raise SetupError(f"Unsloth does not load here: {_first_line(error)}", hint="Run `lowmem-rl doctor`.") from error
    finally:
        if is_collecting:
            gc.enable()


def load_policy(
    config: RunConfig, device: Device, uses: Sequence[SequenceUse] = (), threads: ThreadChoice | None = None
) -> Policy:
    """Loads model and tokenizer through Unsloth and adds a fresh LoRA adapter.

    `uses` are the other uses of the model, next to training; `threads` those of a run that continues. Raises
    `SetupError` if the weights or a chat template are missing, `TaskError` if the template cannot show a question,
    `ConfigError` if the adapter's targets are missing, and on a GPU if the model's positions are too few for a use.
    """
    import_unsloth()
    from transformers import set_seed

    set_seed(config.seed)
    chosen = set_threads(config, device, threads)
    model, tokenizer = _load_pretrained(config, device)
    if tokenizer.chat_template is None:
        hint = "Take the instruct model, or add a chat_template.jinja to a local copy."
        raise SetupError(f"The tokenizer of {config.model.name} has no chat template.", hint=hint)
    template = template_of(tokenizer, config.model.name)
    try:
        model = with_trainable_weights(model, config, device)
    except ValueError as error:  # PEFT found none of the names
        raise ConfigError(f"adapter.targets: {_first_line(error)}", hint="q_proj, v_proj, ... name them.") from error
    embedded = _embedded_tokens(model)
    base = base_of(config) if config.trainable.method == "full" else {}
    policy = Policy(model, tokenizer, device, template, config.trainable, None, embedded, base, chosen)
    policy.check_embedded([i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None])
    return _with_room_for(policy, (*uses_of(config), *uses)) if device.is_gpu else policy  # a CPU cuts no row


def _load_pretrained(config: RunConfig, device: Device) -> tuple[Any, Any]:
    """Returns the model with frozen weights and its tokenizer. Raises `SetupError` if they cannot be loaded."""
    import torch
    from safetensors import SafetensorError
    from unsloth import FastLanguageModel

    try:
        arguments = load_arguments(config, device) | {"dtype": getattr(torch, device.dtype)}
        model, tokenizer = FastLanguageModel.from_pretrained(**arguments)
    except (OSError, SafetensorError) as error:
        download = f"hf download {config.model.name}   (or give a local folder as model.name)"
        raise refusal(config.model.name, error) or SetupError(
            f"Model {config.model.name!r} cannot be loaded: {_first_line(error)}",
            hint=f"Download it on a machine with a network: {download}",
        ) from error
    return model, tokenizer


def _with_room_for(policy: Policy, uses: Sequence[SequenceUse]) -> Policy:
    """Returns the policy with a model that cuts no row of these uses.

    At loading Unsloth sizes vLLM's cache by training's rows. Later the number bounds rows and sizes the rotary table.
    Raises `ConfigError` if the model's positions are too few.
    """
    longest = longest_row(uses, policy.tokenize, policy.encode, policy.model.config.max_position_embeddings)
    for module in policy.model.modules():
        module.max_seq_length = longest
    return replace(policy, longest_row=longest)


def base_of(config: RunConfig) -> dict[str, Any]:
    """Returns what names the model over which a run's whole weights learn; call it after the model is fetched."""
    model = config.model
    digests = base_digests(model.name, model.revision)
    return {"base": model.name, "revision": model.revision, "bits": model.bits, "base_digests": digests}


def with_trainable_weights(model: Any, config: RunConfig, device: Device) -> Any:
    """Returns the model as a PeftModel: with a fresh adapter, or with whole weights that learn."""
    from unsloth import FastLanguageModel

    depth = model.config.num_hidden_layers
    if config.adapter.peft_type == "tinylora" and config.trainable.method == "lora":
        from lowmem_rl.engine.tinylora import add_tinylora

        return add_tinylora(model, tinylora_arguments(config, depth))
    if config.trainable.method == "lora":
        from lowmem_rl.engine.dora import reset_magnitudes

        found = FastLanguageModel.get_peft_model(model, **adapter_arguments(config, device, depth))
        reset_magnitudes(found)
        return found
    from lowmem_rl.engine.parking import Parking, WholeLayers
    from lowmem_rl.engine.whole_weights import train_whole

    schedule = LayerSchedule.of(config, depth)
    found = train_whole(model, schedule.layers, config.trainable, Parking.of(config, device))
    WholeLayers(found, schedule.layers).learn(schedule.at(1))
    return found


def shares_prompts(policy: Policy) -> bool:
    """Returns whether Unsloth's Prefix Grouper has computed a gradient: it notes each layout that it has verified."""
    return bool(getattr(policy.model, "_unsloth_prefix_grouper_grad_verified", None))


def template_of(tokenizer: Any, model: str) -> PromptTemplate:
    """Returns a tokenizer's chat template, rendered by transformers. Raises `TaskError` if it shows no question."""

    def apply(messages: Sequence[Any], *, add_generation_prompt: bool) -> str:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False)
        return str(text)

    return fit_template(model, apply)


def _embedded_tokens(model: ModelLike) -> int:
    return int(model.get_base_model().get_input_embeddings().weight.shape[0])


def load_arguments(config: RunConfig, device: Device) -> dict[str, Any]:
    """Returns the arguments of Unsloth's `from_pretrained`, the compute type as text."""
    return {
        "model_name": model_path(config.model.name),
        "revision": config.model.revision,
        "max_seq_length": training_row(config),
        "dtype": device.dtype,
        "load_in_4bit": config.model.bits != 16,
        # Otherwise Unsloth loads its dynamic upload instead of a 4-bit model.
        "use_exact_model_name": config.model.checkpoint == "plain",
        "fast_inference": config.rollout.engine == "vllm",
        "max_lora_rank": config.adapter.rank,  # with vLLM, which takes one rank
        "random_state": config.seed,
        "use_gradient_checkpointing": _checkpointing(config, device),
    }


def adapter_arguments(config: RunConfig, device: Device, depth: int) -> dict[str, Any]:
    """Returns the arguments of Unsloth's `get_peft_model` for a model of `depth` layers."""
    layers, adapter = layers_of(config.trainable.layers, depth), config.adapter
    arguments = {
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": list(adapter.targets),
        "use_gradient_checkpointing": _checkpointing(config, device),
        "random_state": config.seed,
    } | ({} if len(layers) == depth else {"layers_to_transform": list(layers)})
    variants = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
    return arguments | {key: value for key in variants if (value := getattr(adapter, key))}


def tinylora_arguments(config: RunConfig, depth: int) -> dict[str, Any]:
    """Returns the arguments of `peft.TinyLoraConfig` for a model of `depth` layers."""
    layers, adapter = layers_of(config.trainable.layers, depth), config.adapter
    return {
        "r": SINGULAR_VECTORS,
        "u": adapter.u,
        "weight_tying": adapter.weight_tying,
        "projection_seed": config.seed,
        "tinylora_dropout": adapter.dropout,
        "target_modules": list(adapter.targets),
        "task_type": "CAUSAL_LM",
    } | ({} if len(layers) == depth else {"layers_to_transform": list(layers)})


def _dropout_of(peft_config: Any) -> float:
    return float(getattr(peft_config, "lora_dropout", 0.0) or getattr(peft_config, "tinylora_dropout", 0.0))


def _checkpointing(config: RunConfig, device: Device) -> bool | str:
    # On a CPU the activations are in host RAM already: Unsloth's mode is plain recomputation.
    modes: dict[str, bool | str] = {"unsloth": "unsloth" if device.is_gpu else True, "plain": True, "none": False}
    return modes[config.checkpointing]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
