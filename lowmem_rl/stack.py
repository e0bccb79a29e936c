"""What the GPU path needs beyond documented interfaces: versions, environment switches, private members, source text.

Plain data, and what to report if a package is missing. `tests/contracts/test_stack.py` compares it with the installed
packages, so that an upgrade fails a test and not a run. That test also fails if the code uses a switch or mark of
Unsloth, or a private name of a trainer, that is not listed here. `doctor` compares the versions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from lowmem_rl.errors import SetupError

TESTED: Mapping[str, str] = {
    "torch": "2.14.1",
    "torchvision": "0.29.2",
    "unsloth": "2026.10.9",
    "unsloth_zoo": "2026.10.9",
    "transformers": "5.17.0",
    "trl": "1.15.0",
    "peft": "0.21.2",
    "bitsandbytes": "0.50.2",
    "datasets": "4.8.5",
    "accelerate": "1.15.0",
}
"""The version of each package, tested together in November 2026 on Python 3.11. The extra `train` has the ranges."""
_INSTALL = "pip install 'lowmem-rl[train]'   (in a clone: pip install '.[train]'), then: lowmem-rl doctor"


def check_installed() -> None:
    """Raises `SetupError` if a package of the stack is not installed; none is imported."""
    for name in TESTED:
        if find_spec(name) is None:
            raise _not_installed(name)


def not_loaded(error: ImportError) -> SetupError | None:
    """Returns what to report for a package that is not installed or does not load, None if the package is ours."""
    package = (error.name or "").partition(".")[0]
    if package.startswith("lowmem_rl"):
        return None
    if isinstance(error, ModuleNotFoundError):
        return _not_installed(package)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return SetupError(f"A package does not load here: {reason}", hint="`lowmem-rl doctor` names it and the version.")


def _not_installed(package: str) -> SetupError:
    what = f"This command needs the package {package!r}, which is not installed."
    return SetupError(what, hint=f"Install the training stack: {_INSTALL}")


@dataclass(frozen=True, slots=True)
class Switch:
    """An environment variable of Unsloth: the file that reads it, and why we care."""

    file: str
    why: str


SWITCHES: Mapping[str, Switch] = {
    "UNSLOTH_DISABLE_STATISTICS": Switch("unsloth/models/_utils.py", "set: an import downloads nothing"),
    "UNSLOTH_COMPILE_LOCATION": Switch(
        "unsloth_zoo/compiler.py", "set: rewritten trainers are not written to the working directory"
    ),
    "UNSLOTH_VLLM_STANDBY": Switch("unsloth_zoo/vllm_utils.py", "set for vLLM: its memory is free during the update"),
    "UNSLOTH_MIXED_PRECISION": Switch("unsloth/models/rl.py", "set in float32: no bfloat16 autocast"),
    "UNSLOTH_OFFLOAD_FP32": Switch(
        "unsloth_zoo/gradient_checkpointing.py", "set in float32: activations are kept as they are"
    ),
    "UNSLOTH_GRPO_PREFIX_GROUPER": Switch(
        "unsloth/models/rl_replacements.py", "left on: the update reads a prompt once a group"
    ),
    "UNSLOTH_GRPO_SEQ_PACKING": Switch(
        "unsloth/models/rl_replacements.py", "left on: rows without padding if prompts are not shared"
    ),
    "UNSLOTH_ALLOW_CPU": Switch("unsloth_zoo/device_type.py", "set by tests: the rewritten trainer without a card"),
}


MEMBERS: Mapping[str, str] = {
    "unsloth.FastLanguageModel.from_pretrained": "loads the policy",
    "unsloth.FastLanguageModel.get_peft_model": "adds the adapter",
    "unsloth.FastLanguageModel.for_inference": "before `generate`",
    "unsloth.FastLanguageModel.for_training": "after it",
    "unsloth_zoo.rl_replacements.grpo_accumulated_loss": "the loss that the rewritten trainer computes",
    "peft.tuners.lora.LoraLayer.get_base_layer": "the frozen weight under an adapter",
    "peft.tuners.lora.LoraLayer.active_adapters": "which adapter is on",
    "peft.tuners.lora.LoraLayer.disable_adapters": "if none is on",
    "peft.tuners.lora.LoraLayer.merged": "an adapter that is merged is not ours",
    "peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING": "our TinyLoRA, which knows weights in 4 bit",
    "peft.tuners.tinylora.layer.Linear": "its layer",
    "peft.utils.integrations.dequantize_module_weight": "a 4-bit weight, dequantized for rollouts and exports",
    "transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS": "the frequencies of scaled rotary embeddings",
    "accelerate.Accelerator.backward": "timed",
    "accelerate.Accelerator.optimizer_step_was_skipped": "a step that float16's scaler skips",
    "torch.cuda.OutOfMemoryError": "the error that a run survives",
}
"""Functions, class members and tables that are imported or called by name."""


MARKS = frozenset(
    f"_unsloth_{name}"
    for part in ("grad", "nograd")
    for name in (
        f"prefix_grouper_{part}_verified",
        f"prefix_grouper_{part}_unsafe",
        f"seq_packing_{part}_ok",
        f"seq_packing_{part}_unsafe_T",
        f"seq_packing_{part}_verified_T",
        f"seq_packing_{part}_verified_seg",
    )
) | {"_unsloth_prefix_grouper_nograd_disabled"}
"""Attributes in which Unsloth's `rl_replacements.py` stores on the model which shortcuts it takes. They are reported to
users and saved in checkpoints (`engine.unsloth_shortcuts`)."""


@dataclass(frozen=True, slots=True)
class Wording:
    """Text that a source file of the stack must contain, and what breaks here if it does not."""

    file: str
    text: str
    why: str


WORDINGS = (
    Wording(
        "unsloth/models/rl_replacements.py", "B = self.args.unsloth_grpo_mini_batch", "grpo_args: a count of passes"
    ),
    Wording("unsloth/models/rl_replacements.py", "math.ceil(total_samples / B)", "grpo_args: and not of rows"),
    Wording("unsloth/models/rl.py", "elif mixed_precision_dtype == 'bfloat16':", "trainer: float32 without autocast"),
    Wording("unsloth/models/rl.py", '"if _is_quantized_model:",', "trainer: no rounding of the adapter on a card"),
    Wording("unsloth/models/rl.py", "elif scale_rewards == True or scale_rewards == 'group':", "rules: refused"),
    Wording(
        "transformers/trainer.py",
        "self._globalstep_last_logged = self.state.global_step",
        "update: is a step's row written",
    ),
    Wording("torch/amp/grad_scaler.py", '"_step_supports_amp_scaling"', "update: a skipped step of a fused AdamW"),
    Wording("torch/optim/lr_scheduler.py", "self._last_lr", "step_boundary: the learning rate after a rollback"),
    Wording("trl/trainer/grpo_trainer.py", "self.reward_funcs = ", "trainer: the scores of a round are saved"),
    Wording("trl/trainer/grpo_trainer.py", "self.state.num_input_tokens_seen += ", "update: counted once a round"),
    Wording(
        "trl/trainer/grpo_trainer.py", "param.data = param.data.to(torch.bfloat16)", "trainer: we restore the type"
    ),
    Wording("trl/trainer/utils.py", "with model.disable_adapter():", "reference: computes with the start there"),
    Wording("trl/trainer/sft_trainer.py", 'if "labels" not in column_names:', "sft: rows keep the labels we give"),
    Wording("trl/trainer/sft_trainer.py", "param.data = param.data.to(torch.bfloat16)", "sft: we restore the type"),
    Wording("unsloth_zoo/dataset_utils.py", 'if "labels" in column_names:', "sft: the same on a card"),
    Wording("peft/tuners/lora/dora.py", "torch.linalg.norm(weight, dim=1).to(weight.dtype)", "dora: the norm's type"),
    Wording("peft/tuners/lora/dora.py", "(mag_norm_scale - 1) * base_result", "decoder_weights: DoRA's gain"),
    Wording("peft/tuners/tinylora/layer.py", "self._tinylora_v_key[adapter_name] = v_key", "tinylora: its numbers"),
    Wording("peft/tuners/tinylora/layer.py", "self._init_svd(adapter_name, r, fan_in_fan_out)", "tinylora: ours"),
    Wording("peft/tuners/tinylora/model.py", "group_idx = min(layer_idx // group_size", "adapter_tensors: its groups"),
    Wording("unsloth/models/_utils.py", "if max_seq_length < 512:", "docs: shorter rows get plain checkpointing"),
    Wording("unsloth/models/llama.py", "We shall truncate it ourselves", "policy: longer rows are cut"),
    Wording("unsloth/models/llama.py", "causal_mask = mask,", "gradient_start: the mark of a layer of Unsloth's"),
    Wording("unsloth/models/llama.py", "hidden_states = layer_outputs[0]", "gradient_start: which returns a tuple"),
    Wording(
        "unsloth/utils/prefix_grouper.py", "pos_list.extend(range(P, P + r_i))", "states_by_ids: rows by positions"
    ),
    Wording("unsloth_zoo/rl_replacements.py", "kl_i = torch.clamp(kl_i, min = -10.0, max = 10.0)", "docs: the KL cap"),
)
