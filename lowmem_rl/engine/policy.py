"""Loads the policy: a model with frozen weights and a LoRA adapter, and its tokenizer.

Everything that differs between a GPU and the CPU stands in this file. Unsloth must be
imported before trl, transformers and peft, whose classes it rebinds; `import_unsloth` owns
that order and is called before any of them.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.row_length import SequenceUse, longest_row, training_row, uses_of
from lowmem_rl.errors import ConfigError, LowMemError, SetupError
from lowmem_rl.example import Message
from lowmem_rl.models.lookup import load_shape, model_path
from lowmem_rl.prompts import prefill_of


@dataclass(frozen=True)
class Policy:
    """The model that learns, its tokenizer, and where it computes."""

    model: Any
    tokenizer: Any
    device: Device
    prefill: str
    """What the chat template opens the assistant's turn with: a think tag, or nothing."""
    longest_row: int | None = None
    """Tokens of the longest row that it was loaded for; None if nothing cuts rows: on a CPU, in plain transformers."""

    def render(self, prompt: Sequence[Message]) -> str:
        """Returns the prompt under the chat template, the assistant's turn opened."""
        return render(self.tokenizer, prompt)

    def tokenize(self, prompt: Sequence[Message]) -> list[int]:
        """Returns the rendered prompt's token ids; the template brings the BOS token itself, where there is one."""
        ids: list[int] = self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        return ids

    def encode(self, text: str) -> list[int]:
        """Returns a text's token ids, without what the tokenizer would put around it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def takes(self, tokens: int) -> bool:
        """Says whether the model reads a row of so many tokens whole."""
        return self.longest_row is None or tokens <= self.longest_row

    def has_room(self, prompt: Sequence[Message], answer_tokens: int) -> bool:
        """Says whether the model reads a prompt and an answer of so many tokens whole."""
        return self.longest_row is None or self.takes(len(self.tokenize(prompt)) + answer_tokens)

    def check_row(self, tokens: int) -> None:
        """Raises `ConfigError` for a row of more tokens than the model was loaded for."""
        if not self.takes(tokens):
            raise ConfigError(
                f"A row of {tokens} tokens is longer than {self.longest_row}, the most that the model was loaded for.",
                hint="Ask with a shorter prompt or for fewer tokens, or raise grpo.max_prompt_tokens.",
            )

    def complete(self, ids: Sequence[int]) -> str:
        """Returns the assistant's whole turn: what the template opened with, then the sampled tokens."""
        return self.prefill + str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a completion."""
        ids = self.model.generation_config.eos_token_id
        ids = ids if isinstance(ids, list) else [ids]
        return frozenset(i for i in (*ids, self.tokenizer.eos_token_id) if i is not None)

    @contextlib.contextmanager
    def inference(self) -> Iterator[Any]:
        """Yields the model ready to generate, without gradients; puts it back into training afterwards."""
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
        """Leaves training mode where that matters: walking all modules twice costs more than a short forward."""
        if not self.model.training or not any(config.lora_dropout for config in self.model.peft_config.values()):
            yield
            return
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()

    def save_adapter(self, path: Path) -> None:
        """Writes adapter and tokenizer in PEFT's format, alike in every process."""
        for config in self.model.peft_config.values():
            if isinstance(config.target_modules, set):  # of names, whose order in a set each process draws anew
                config.target_modules = sorted(config.target_modules)
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)


def prepare_process(config: RunConfig, device: Device) -> None:
    """Sets what must stand in the environment before torch and Unsloth are imported."""
    if device.is_gpu:
        # Several visible GPUs break Unsloth's GRPO: the first one that the user left visible is taken.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[0] or "0"
        # NVML, which chose the card, counts by bus; CUDA would count the fastest first.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        if device.dtype == "float32":  # Unsloth's checkpointing would keep float32 activations as bfloat16
            os.environ.setdefault("UNSLOTH_OFFLOAD_FP32", "exact")
    elif _is_small(config):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The statistics call downloads a file at import; compiled trainers would land in the working directory.
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_dir() / "unsloth_compiled"))
    if config.rollout.engine == "vllm":
        os.environ.setdefault("UNSLOTH_VLLM_STANDBY", "1")


SMALL_HIDDEN_SIZE = 256
"""Below this width the layers of a model are so short that threads mostly wait for each other: beside one
other busy process a step of the embedded model took 66 s on two threads and 0.7 s on one (two x86 cores,
2026-11-20). One thread also makes a run's digits independent of the number of cores."""


def _is_small(config: RunConfig) -> bool:
    with contextlib.suppress(LowMemError):  # an unknown shape is not the embedded model's
        return load_shape(config.model.name, config.model.revision).hidden_size < SMALL_HIDDEN_SIZE
    return False


def cache_dir() -> Path:
    """Returns where this program keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lowmem-rl"


def import_unsloth() -> None:
    """Imports Unsloth first of all. Raises `SetupError` where the training stack is missing or does not load."""
    try:
        import unsloth  # noqa: F401
    except ModuleNotFoundError as error:
        raise SetupError(
            f"Training needs the package {error.name!r}, which is not installed.",
            hint="Install the training stack: uv sync --extra train   (then `lowmem-rl doctor`)",
        ) from error
    except (ImportError, NotImplementedError, RuntimeError) as error:
        raise SetupError(f"Unsloth does not load here: {_first_line(error)}", hint="Run `lowmem-rl doctor`.") from error


def load_policy(config: RunConfig, device: Device, uses: Sequence[SequenceUse] = ()) -> Policy:
    """Loads model and tokenizer through Unsloth and adds a fresh LoRA adapter.

    `uses` say what is read besides the rows of training. Raises `SetupError` for weights that cannot be had, and on
    a GPU `ConfigError` for a use that the model has no room for.
    """
    import_unsloth()
    import torch
    from safetensors import SafetensorError
    from transformers import set_seed
    from unsloth import FastLanguageModel

    set_seed(config.seed)
    if not device.is_gpu and _is_small(config):
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        model, tokenizer = FastLanguageModel.from_pretrained(
            **load_arguments(config, device) | {"dtype": getattr(torch, device.dtype)}
        )
    except (OSError, SafetensorError) as error:
        raise _not_to_be_had(config.model.name, error) from error
    if tokenizer.chat_template is None:
        raise SetupError(
            f"The tokenizer of {config.model.name} has no chat template.",
            hint="Take the instruct model, or add a chat_template.jinja to a local copy.",
        )
    try:
        model = FastLanguageModel.get_peft_model(model, **adapter_arguments(config, device))
    except ValueError as error:  # PEFT found none of the names
        raise ConfigError(f"adapter.targets: {_first_line(error)}", hint="q_proj, v_proj, ... name them.") from error
    prefill = prefill_of(render(tokenizer, [{"role": "user", "content": ""}]))
    return _with_room(Policy(model, tokenizer, device, prefill), (*uses_of(config), *uses))


def _with_room(policy: Policy, uses: Sequence[SequenceUse]) -> Policy:
    """Returns the policy, on a GPU able to read the rows of all uses; on a CPU nothing cuts rows.

    They are known once there is a tokenizer. Loading itself is given the rows of training alone: by that number
    Unsloth sizes vLLM's cache and chooses how it checkpoints. Afterwards it bounds rows and sizes the rotary table.
    """
    if not policy.device.is_gpu:
        return policy
    longest = longest_row(uses, policy.tokenize, policy.encode, policy.model.config.max_position_embeddings)
    for module in policy.model.modules():
        module.max_seq_length = longest
    return replace(policy, longest_row=longest)


def shares_prompts(policy: Policy) -> bool:
    """Says whether Unsloth's Prefix Grouper has computed a gradient; it notes each layout that it has verified."""
    return bool(getattr(policy.model, "_unsloth_prefix_grouper_grad_verified", None))


def render(tokenizer: Any, prompt: Sequence[Message]) -> str:
    """Returns the prompt under the tokenizer's chat template, the assistant's turn opened."""
    text: str = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)
    return text


def load_arguments(config: RunConfig, device: Device) -> dict[str, Any]:
    """Returns the arguments for Unsloth's `from_pretrained`; the compute type as text."""
    return {
        "model_name": model_path(config.model.name),
        "revision": config.model.revision,
        "max_seq_length": training_row(config),
        "dtype": device.dtype,
        "load_in_4bit": config.model.bits == 4,
        # Otherwise Unsloth swaps a 4-bit model's name for its dynamic upload.
        "use_exact_model_name": config.model.checkpoint == "plain",
        "fast_inference": config.rollout.engine == "vllm",
        "max_lora_rank": config.adapter.rank,
        "random_state": config.seed,
        "use_gradient_checkpointing": _checkpointing(config, device),
    }


def adapter_arguments(config: RunConfig, device: Device) -> dict[str, Any]:
    """Returns the arguments for Unsloth's `get_peft_model`."""
    return {
        "r": config.adapter.rank,
        "lora_alpha": config.adapter.alpha,
        "lora_dropout": config.adapter.dropout,
        "target_modules": list(config.adapter.targets),
        "use_gradient_checkpointing": _checkpointing(config, device),
        "random_state": config.seed,
    }


def _checkpointing(config: RunConfig, device: Device) -> bool | str:
    # On a CPU the activations are in host RAM already: Unsloth's mode is plain recomputation there.
    modes: dict[str, bool | str] = {"unsloth": "unsloth" if device.is_gpu else True, "plain": True, "none": False}
    return modes[config.checkpointing]


def _not_to_be_had(name: str, error: Exception) -> SetupError:
    return SetupError(
        f"Model {name!r} cannot be loaded: {_first_line(error)}",
        hint=f"Fetch it where there is a network: hf download {name}   (or give a local folder as model.name)",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
