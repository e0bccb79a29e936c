"""What whole weights rely on inside PEFT: an upgrade fails here and not in a run."""
# ruff: noqa: TID253  # the tests of this file are about that library

import inspect

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn

pytestmark = pytest.mark.slow  # it loads PEFT


class Model(nn.Module):
    """A model as PEFT takes one."""

    def __init__(self) -> None:
        super().__init__()
        self.config = type(
            "Config", (), {"model_type": "none", "tie_word_embeddings": False, "to_dict": lambda _: {}}
        )()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x)
        return found


def wrapper() -> ModulesToSaveWrapper:
    return ModulesToSaveWrapper(nn.Linear(4, 4), "default")


def test_a_name_that_matches_no_module_makes_a_peft_model_without_an_adapter() -> None:
    model = get_peft_model(Model(), LoraConfig(target_modules=DUMMY_TARGET_MODULES))
    assert not [name for name, _ in model.named_parameters() if "lora" in name]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("__init__", ["self", "module_to_save", "adapter_name", "tied_module"]),
        ("update", ["self", "adapter_name", "tied_module", "kwargs"]),
        ("enable_adapters", ["self", "enabled"]),
        ("_forward_wrapped", ["self", "args", "kwargs"]),
        ("adapter_state_dict", ["self", "adapter_name", "state_dict"]),
    ],
)
def test_what_is_overridden_takes_what_it_took(method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(ModulesToSaveWrapper, method)).parameters) == parameters


def test_the_wrapper_makes_its_copy_in_update_and_frees_it_in_enable_adapters() -> None:
    wrapped = wrapper()
    assert wrapped.modules_to_save["default"].weight.requires_grad
    assert not wrapped.original_module.weight.requires_grad
    wrapped.modules_to_save["default"].requires_grad_(False)
    wrapped.enable_adapters(False)
    assert wrapped.disable_adapters
    wrapped.enable_adapters(True)  # the trap that `WholeModule` avoids: it would let all layers learn again
    assert wrapped.modules_to_save["default"].weight.requires_grad
    wrapped.modules_to_save["default"].requires_grad_(False)
    AuxiliaryTrainingWrapper.enable_adapters(wrapped, True)
    assert not wrapped.modules_to_save["default"].weight.requires_grad


def test_attributes_come_from_the_copy_and_with_adapters_off_from_the_original() -> None:
    wrapped = wrapper()
    wrapped.modules_to_save["default"].mark = "copy"
    wrapped.original_module.mark = "original"
    assert wrapped.mark == "copy"
    wrapped.enable_adapters(False)
    assert wrapped.mark == "original"
    with pytest.raises(AttributeError):
        _ = wrapped.nothing


def test_disable_adapter_reaches_wrappers_that_were_put_in_later() -> None:
    model = get_peft_model(Model(), LoraConfig(target_modules=DUMMY_TARGET_MODULES))
    base = model.get_base_model()
    base.inner = ModulesToSaveWrapper(base.inner, "default")
    before = model(torch.ones(1, 4))
    with torch.no_grad():
        base.inner.modules_to_save["default"].weight.add_(1.0)
    assert not torch.equal(model(torch.ones(1, 4)), before)
    with model.disable_adapter():
        assert torch.equal(model(torch.ones(1, 4)), before)
