"""Every operation of torch: computed by the CPU's kernels on aliases of the card's memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.rehearsal.card import phantom, waits
from tests.rehearsal.card.checks import check_call, check_generator, target_of
from tests.rehearsal.card.in_place import NOT_MINE, SPECIAL
from tests.rehearsal.card.memory import CPU, alias, to_card, view_on
from tests.rehearsal.card.nested import mapped
from tests.rehearsal.card.random_numbers import seeded
from tests.rehearsal.card.state import STATE


class SimulatedCuda(TorchDispatchMode):
    """The mode that is never left; threads enter one of their own."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return execute(func, args, kwargs or {})


def execute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns what the operation returns on a card. Raises what `checks` does."""
    name = func._schema.name
    special = SPECIAL.get(name)
    if special is not None and (found := special(args, kwargs)) is not NOT_MINE:
        return found
    if STATE.counts_waits:
        waits.note_call(name, args, kwargs)
    if STATE.phantom_bytes is not None and phantom.lacks_data(func, name, args, kwargs):
        if (code := written_in_python(name)) is not None:
            with SimulatedCuda():
                return code(*args, **kwargs)
        return phantom.execute(func, name, args, kwargs)
    operation = Operation()
    low_args = [operation.lower(value) for value in args]
    low_kwargs = {key: operation.lower(value) for key, value in kwargs.items() if key != "pin_memory"}
    check_call(func, name, args, kwargs, operation.has_card and operation.has_host)
    operation.target = target = target_of(name, args, operation.asked, operation.has_card)
    check_generator(target, kwargs.get("generator"))
    if target.type == "cuda" and torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
        result = seeded(func, low_args, low_kwargs)
    else:
        result = func(*low_args, **low_kwargs)
    if STATE.phantom_bytes is not None and name in phantom.EMPTIES:
        result.zero_()  # a kernel that does not run writes nothing over what the host's memory held
    return operation.result(result, is_in_place=func._schema.is_mutable)


def written_in_python(name: str) -> Any:
    """Returns the code of an operator such as Unsloth's losses, whose own allocations its shape function hides."""
    from torch._library.custom_ops import OPDEFS

    found = OPDEFS.get(name)
    return found and (found._backend_fns.get("cuda") or found._backend_fns.get(None) or found._init_fn)


class Operation:
    """The arguments of one operation lowered to the host, its result lifted back."""

    __slots__ = ("asked", "has_card", "has_host", "lowered", "owners", "target")

    def __init__(self) -> None:
        self.lowered: dict[int, torch.Tensor] = {}
        """The tensor that was passed, by the identity of what replaces it."""
        self.owners: dict[int, torch.Tensor] = {}
        """The tensor that was passed, by the address of its storage: a result there is a view of it."""
        self.has_card = self.has_host = False
        self.asked: list[torch.device] = []
        self.target = CPU

    def lower(self, value: Any) -> Any:
        """Returns an argument for the CPU's kernel."""
        if isinstance(value, torch.Tensor):
            return self._lower_tensor(value)
        if isinstance(value, torch.device):
            self.asked.append(value)
            return CPU if value.type == "cuda" else value
        if isinstance(value, list | tuple):
            return type(value)(self.lower(item) for item in value) if type(value) in (list, tuple) else value
        if isinstance(value, dict):
            return {key: self.lower(item) for key, item in value.items()}
        return value

    def _lower_tensor(self, value: torch.Tensor) -> torch.Tensor:
        low = value
        if value.is_cuda:
            self.has_card, low = True, alias(value)
        elif value.device.type == "cpu":
            self.has_host = True
        else:
            return value
        self.lowered[id(low)] = value
        if address := value.untyped_storage().data_ptr():
            self.owners[address] = value
        return low

    def result(self, result: Any, *, is_in_place: bool) -> Any:
        """Returns the operation's result; what is written in place is what was passed."""
        if is_in_place and isinstance(result, torch.Tensor) and id(result) in self.lowered:
            return self.lowered[id(result)]
        return mapped(result, self.lifted)

    def lifted(self, value: torch.Tensor) -> torch.Tensor:
        """Returns a result on its device."""
        kind, known = self.target.type, self.lowered.get(id(value))
        if known is not None and known.device.type == kind:
            return known
        if value.device.type != "cpu":
            return value
        owner = self.owners.get(value.untyped_storage().data_ptr())
        if owner is not None and owner.device.type == kind:
            return view_on(owner, value) if kind == "cuda" else value
        if owner is not None:
            value = value.clone()
        return to_card(value) if kind == "cuda" else value
