"""Whole matrices, norms and embeddings that learn, over a frozen model in 4 or 16 bit.

Each is a PEFT `ModulesToSaveWrapper` around the frozen original, so `disable_adapter` gives the base model, which is
the KL reference, and saving and loading are PEFT's. The copy that learns is made once, in float32 unless asked
otherwise: bfloat16 has 8 significant bits, and rounds an update away that is smaller than 2^-9 of its weight.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn

from lowmem_rl.config.layer_choice import check_extra
from lowmem_rl.config.run_config import TrainableConfig
from lowmem_rl.errors import ConfigError

ADAPTER = "default"


class WholeModule(ModulesToSaveWrapper):
    """A module that learns whole; its frozen original computes while adapters are off.

    Unsloth computes with the attributes of some modules and calls others.
    """

    merged = True
    """Its weight is all of it: there is no adapter to add."""

    def __init__(self, original: nn.Module, dtype: torch.dtype, tied: nn.Module | None = None) -> None:
        self.dtype = dtype
        super().__init__(original, ADAPTER, tied_module=tied)

    def update(self, adapter_name: str, tied_module: Any = None, **kwargs: Any) -> None:
        """Makes the copy that learns: of a tied head, over the embeddings' very weight."""
        AuxiliaryTrainingWrapper.update(self, adapter_name)
        learned = _copy(self.original_module, self.dtype)
        if tied_module is not None:
            learned.weight = tied_module.weight
        self.modules_to_save[adapter_name] = learned.requires_grad_(True)
        self.original_module.requires_grad_(False)

    @property
    def active_module(self) -> nn.Module:
        """The module that computes now."""
        found: nn.Module = self.original_module if self.disable_adapters else self.modules_to_save[ADAPTER]
        return found

    @property
    def weight(self) -> torch.Tensor:
        """What computes now, in the model's type; a gradient reaches the copy through it."""
        original: torch.Tensor = self.original_module.weight
        if self.disable_adapters:
            return original
        is_plain = original.is_floating_point()
        found: torch.Tensor = self.active_module.weight
        return found.to(original.dtype if is_plain else original.quant_state.dtype)

    def become_original(self) -> None:
        """Copies the original's values."""
        original = _copy(self.original_module, self.dtype)
        for learned, value in zip(self.modules_to_save[ADAPTER].parameters(), original.parameters(), strict=True):
            learned.copy_(value)

    def enable_adapters(self, enabled: bool) -> None:
        """Switches between copy and original; PEFT's would also let all copies need gradients again."""
        AuxiliaryTrainingWrapper.enable_adapters(self, enabled)

    def _forward_wrapped(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        learned, wanted = self.modules_to_save[ADAPTER], _output_type(self.original_module, x)
        if isinstance(learned, nn.Linear):  # the product in the model's type, outside autocast too
            bias = None if learned.bias is None else learned.bias.to(wanted)
            return nn.functional.linear(x.to(wanted), learned.weight.to(wanted), bias)
        found: torch.Tensor = learned(x, *args, **kwargs)
        return found.to(wanted)


def _output_type(original: nn.Module, x: torch.Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else next(original.parameters()).dtype


def _copy(original: Any, dtype: torch.dtype) -> Any:
    """Returns a module of the same kind with weights of its own, expanded if they are in 4 bit."""
    if isinstance(original, nn.Linear):
        weight, bias = dequantize_module_weight(original).detach(), original.bias
        copy = nn.Linear(original.in_features, original.out_features, bias=bias is not None, device="meta")
        copy.weight = nn.Parameter(weight.to(dtype, copy=True))
        if bias is not None:
            copy.bias = nn.Parameter(bias.detach().to(dtype, copy=True))
        return copy
    from copy import deepcopy

    return deepcopy(original).to(dtype)


def train_whole(model: Any, layers: Sequence[int], trainable: TrainableConfig) -> Any:
    """Returns the model as a PeftModel in which modules of these layers learn whole, and those of `extra`.

    Raises `ConfigError` if `trainable.modules` names a module that no such layer has, for the head of tied embeddings,
    and if no weight would learn.
    """
    check_extra(trainable.extra, is_tied=model.config.tie_word_embeddings)
    model.requires_grad_(False)
    dtype = getattr(torch, trainable.dtype)
    # PEFT wants a target; this name matches none: without LoRA it is a PeftModel all the same.
    found = get_peft_model(model, LoraConfig(target_modules=DUMMY_TARGET_MODULES, task_type="CAUSAL_LM"))
    names = list(_chosen(model, layers, trainable))
    if not names:
        raise ConfigError("trainable: no weight would learn.", hint='Set trainable.layers="all", or trainable.extra.')
    for name in names:
        _wrap(model, name, dtype)
    if "embed_tokens" in trainable.extra and model.config.tie_word_embeddings:
        _wrap(model, "lm_head", dtype, model.get_submodule("model.embed_tokens").modules_to_save[ADAPTER])
    return found


def _wrap(model: Any, name: str, dtype: torch.dtype, tied: nn.Module | None = None) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, WholeModule(model.get_submodule(name), dtype, tied))


def _chosen(model: Any, layers: Sequence[int], trainable: TrainableConfig) -> Iterator[str]:
    """Yields the names of the modules that learn: leaves with weights."""
    leaves = [
        name
        for name, module in model.named_modules()
        if next(module.parameters(), None) is not None and next(module.children(), None) is None
    ]
    inside = tuple(f"model.layers.{layer}." for layer in layers)
    in_layers = [name for name in leaves if name.startswith(inside)]
    present = {name.rpartition(".")[2] for name in in_layers}
    if missing := sorted(set(trainable.modules) - present):
        what = f"trainable.modules: no layer that learns has a module {missing[0]!r}."
        raise ConfigError(what, hint=f"These layers have {', '.join(sorted(present))}.")
    for name in leaves:
        last, is_in_layer = name.rpartition(".")[2], name.startswith("model.layers.")
        is_chosen = name.startswith(inside) and (last in trainable.modules or not trainable.modules)
        is_extra = last in trainable.extra and not is_in_layer
        if is_chosen or is_extra or ("norms" in trainable.extra and last.endswith("norm")):
            yield name
