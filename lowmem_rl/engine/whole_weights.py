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
from lowmem_rl.engine.parking import HOST, NOTHING, Parking, move
from lowmem_rl.engine.peft_model import layer_of
from lowmem_rl.errors import ConfigError

ADAPTER = "default"


class WholeModule(ModulesToSaveWrapper):
    """A module that learns whole; its frozen original computes while adapters are off.

    Unsloth computes with the attributes of some modules and calls others. While it rests, a copy that equals its
    original shares its memory; on a card another matrix waits in host RAM, and its 16-bit rounding computes: the same
    numbers, as a product is computed in that type in any case.
    """

    merged = True
    """Its weight is all of it: there is no adapter to add."""

    def __init__(
        self,
        original: nn.Module,
        dtype: torch.dtype,
        parking: Parking = NOTHING,
        *,
        rests: bool = False,
        tied: nn.Module | None = None,
    ) -> None:
        self.dtype, self.parking = dtype, parking
        self.home = next(original.parameters()).device
        self.at_rest: tuple[nn.Module, ...] = ()
        """What computes instead of the copy; a tuple hides it from torch, which would save it as weights."""
        self.rests = False
        super().__init__(original, ADAPTER, tied_module=tied)
        self.register_load_state_dict_post_hook(_settle)
        if rests:
            self.rest()
        else:
            self._place_original()

    def update(self, adapter_name: str, tied_module: Any = None, **kwargs: Any) -> None:
        """Makes the copy that learns: of a tied head, over the embeddings' very weight."""
        AuxiliaryTrainingWrapper.update(self, adapter_name)
        learned = _copy(self.original_module, self.dtype)
        if tied_module is not None:
            learned.weight = tied_module.weight
        self.modules_to_save[adapter_name] = learned.requires_grad_(True)
        self.original_module.requires_grad_(False)

    @property
    def learned(self) -> nn.Module:
        """The copy that learns, wherever it is."""
        found: nn.Module = self.modules_to_save[ADAPTER]
        return found

    @property
    def shares_memory(self) -> bool:
        """True while it rests as its original: then its copy has no memory of its own."""
        return bool(self.at_rest) and self.at_rest[0] is self.original_module

    def rest(self) -> None:
        """Frees the memory that only learning needs."""
        if not self.rests:
            self.rests = True
            self.settle()

    def settle(self) -> None:
        """Chooses what computes at rest for the present numbers."""
        self.at_rest = ()
        with torch.inference_mode(False), torch.no_grad():
            if self._equals_original():
                self.at_rest = (self.original_module,)
                self._place_original()
                for copy, original in zip(self.learned.parameters(), self.original_module.parameters(), strict=True):
                    copy.data = original.data
            elif self._leaves_the_card:
                self.at_rest = (_copy(self.learned, self._narrow).requires_grad_(False).to(self.home),)
                move(self.learned, HOST)

    def learn(self) -> None:
        """Lets the copy compute and learn again, with the numbers that it had."""
        if self.rests:
            self._own_memory(self.home)
            self.rests, self.at_rest = False, ()
            self._place_original()

    def _own_memory(self, device: torch.device) -> None:
        shared = self.shares_memory
        with torch.inference_mode(False):
            for weight in self.learned.parameters():
                weight.data = weight.data.to(device, self.dtype, copy=shared)

    def _equals_original(self) -> bool:
        """Never in 4 bit: the expanded weights would be there twice."""
        pairs = zip(self.learned.parameters(), self.original_module.parameters(), strict=True)
        return all(
            original.is_floating_point() and torch.equal(original.to(copy.device, copy.dtype), copy)
            for copy, original in pairs
        )

    @property
    def _leaves_the_card(self) -> bool:
        """Norms stay: they are small, and compute with all bits of their weights."""
        return self.parking.masters and isinstance(self.learned, nn.Linear) and self._narrow != self.dtype

    def _place_original(self) -> None:
        if self.parking.originals:
            move(self.original_module, self.home if self.disable_adapters or self.shares_memory else HOST)

    @property
    def _narrow(self) -> torch.dtype:
        """The type in which the frozen model computes."""
        original: torch.Tensor = self.original_module.weight
        return original.dtype if original.is_floating_point() else original.quant_state.dtype

    @property
    def active_module(self) -> nn.Module:
        """The module that computes now."""
        if self.disable_adapters:
            return self.original_module
        return self.at_rest[0] if self.at_rest else self.learned

    @property
    def weight(self) -> torch.Tensor:
        """What computes now, in the model's type; a gradient reaches the copy through it."""
        found: torch.Tensor = self.active_module.weight
        return found if self.disable_adapters else found.to(self._narrow)

    @property
    def bias(self) -> torch.Tensor | None:
        """What is added now, in the model's type. Raises `AttributeError` for a module without biases."""
        found: torch.Tensor | None = self.active_module.bias
        return found if found is None or self.disable_adapters else found.to(self._narrow)

    def become_original(self) -> None:
        """Copies the original's values."""
        original = _copy(self.original_module, self.dtype)
        for learned, value in zip(self.learned.parameters(), original.parameters(), strict=True):
            learned.copy_(value)
        if self.rests:
            self.settle()

    def enable_adapters(self, enabled: bool) -> None:
        """Switches between copy and original; PEFT's would also let all copies need gradients again."""
        AuxiliaryTrainingWrapper.enable_adapters(self, enabled)
        self._place_original()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Leaves its parts where they are: a trainer's `to` would bring all that is parked to the card."""
        return self if self.parking != NOTHING else super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # Saved numbers must not be written into the original's memory.
        if self.shares_memory:
            self._own_memory(HOST if self._leaves_the_card else self.home)
        super()._load_from_state_dict(*args, **kwargs)

    def _forward_wrapped(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        learned, wanted = self.active_module, _output_type(self.original_module, x)
        if isinstance(learned, nn.Linear):  # the product in the model's type, outside autocast too
            bias = None if learned.bias is None else learned.bias.to(wanted)
            return nn.functional.linear(x.to(wanted), learned.weight.to(wanted), bias)
        found: torch.Tensor = learned(x, *args, **kwargs)
        return found.to(wanted)


def _settle(module: WholeModule, keys: Any) -> None:
    """Follows the loading of other numbers."""
    if module.rests:
        module.settle()


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


def train_whole(model: Any, layers: Sequence[int], trainable: TrainableConfig, parking: Parking = NOTHING) -> Any:
    """Returns the model as a PeftModel in which modules of these layers learn whole, and those of `extra`.

    Under a schedule all layers rest at first. Raises `ConfigError` if `trainable.modules` names a module that no such
    layer has, for the head of tied embeddings, and if no weight would learn.
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
        # What is `extra` learns all the time; a model is where its embeddings are, so they stay.
        is_chosen = layer_of(name) in layers
        rests = is_chosen and trainable.schedule != "fixed"
        place = parking if is_chosen else NOTHING
        model.set_submodule(name, WholeModule(model.get_submodule(name), dtype, place, rests=rests))
    if "embed_tokens" in trainable.extra and model.config.tie_word_embeddings:
        embeddings = model.get_submodule("model.embed_tokens").learned
        model.set_submodule("lm_head", WholeModule(model.lm_head, dtype, tied=embeddings))
    return found


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
