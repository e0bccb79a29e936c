"""Every operation of torch: computed by the CPU's kernels on aliases of the card's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.rehearsal.card import phantom, waits
from tests.rehearsal.card.in_place import NOT_MINE, SPECIAL
from tests.rehearsal.card.memory import CPU, CUDA, alias, to_card, view_on
from tests.rehearsal.card.random_numbers import seeded
from tests.rehearsal.card.state import STATE

COPIES = frozenset(f"aten::{name}" for name in ("copy_", "_to_copy", "to", "set_", "lift_fresh", "_copy_from"))
HOST_SCALARS = frozenset(
    f"aten::{name}"
    for name in (
        "where",
        "masked_fill",
        "masked_fill_",
        "fill_",
        "clamp",
        "lerp_",
        "lerp",
        "_fused_adamw_",
        "_fused_adam_",
        "result_type",
        "div",
        "mul",
        "add",
        "sub",
        "pow",
    )
)
"""Operations on card tensors that take a zero-dimensional host tensor; pointwise ones do, too."""


class SimulatedCuda(TorchDispatchMode):
    """The mode that is never left; threads enter one of their own."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return execute(func, args, kwargs or {})


def execute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns what the operation returns on a card. Raises what CUDA raises if devices are mixed."""
    name = func._schema.name
    special = SPECIAL.get(name)
    if special is not None and (found := special(args, kwargs)) is not NOT_MINE:
        return found
    if STATE.phantom_bytes is not None and phantom.lacks_data(func, name, args, kwargs):
        if (code := written_in_python(name)) is not None:
            with SimulatedCuda():
                return code(*args, **kwargs)
        return phantom.execute(func, name, args, kwargs, check_devices)
    operation = Operation()
    low_args = [operation.lower(value) for value in args]
    low_kwargs = {key: operation.lower(value) for key, value in kwargs.items() if key != "pin_memory"}
    check_devices(func, name, args, kwargs, operation.has_card and operation.has_host)
    if operation.has_card and STATE.counts_waits:
        waits.note_operation(name, args)
    operation.target = target = target_of(name, args, operation.asked, operation.has_card)
    if name in COPIES and operation.asked and operation.has_card != (target.type == "cuda"):
        waits.note_copy(args[0], to_card=target.type == "cuda", non_blocking=bool(kwargs.get("non_blocking")))
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


def target_of(name: str, args: tuple[Any, ...], asked: list[torch.device], has_card: bool) -> torch.device:
    """Returns the device of an operation's result."""
    if asked and asked[0].type != "meta":
        return CUDA if asked[0].type == "cuda" else asked[0]
    if name == "aten::to" and len(args) > 1 and isinstance(args[1], torch.Tensor):
        return CUDA if args[1].is_cuda else args[1].device
    return CUDA if has_card else CPU


class Operation:
    """The arguments of one operation lowered to the host, its result lifted back."""

    __slots__ = ("asked", "has_card", "has_host", "lowered", "owners", "target")

    def __init__(self) -> None:
        self.lowered: dict[int, torch.Tensor] = {}
        """The tensor that was passed, by the identity of what stands in for it."""
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
        return self.lift(result)

    def lift(self, value: Any) -> Any:
        """Returns a result on its device."""
        if isinstance(value, torch.Tensor):
            return self._lift_tensor(value)
        if isinstance(value, list | tuple):
            return type(value)(self.lift(item) for item in value) if type(value) in (list, tuple) else value
        return value

    def _lift_tensor(self, value: torch.Tensor) -> torch.Tensor:
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


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors of nested arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def check_devices(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], is_mixed: bool) -> None:
    """Raises `RuntimeError` for host and card tensors in one operation, unless CUDA takes them."""
    if not is_mixed or name in COPIES or name.startswith("bitsandbytes::optimizer"):  # paged states are host tensors
        return
    if name in waits.INDEXING:
        _check_index(name, args)
        return
    takes_scalars = torch.Tag.pointwise in func.tags or name in HOST_SCALARS or "_foreach" in name or "_amp" in name
    for tensor in tensors_in((args, kwargs)):
        if tensor.device.type == "cpu" and not (takes_scalars and tensor.dim() == 0):
            raise mixed(name, f"a host tensor {tuple(tensor.shape)} {tensor.dtype}")


def _check_index(name: str, args: tuple[Any, ...]) -> None:
    itself, indices = args[0], args[1]
    if not itself.is_cuda and any(isinstance(index, torch.Tensor) and index.is_cuda for index in indices):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    values = args[2] if len(args) > 2 else None
    if isinstance(values, torch.Tensor) and values.is_cuda != itself.is_cuda and values.dim():
        raise mixed(name, f"values {tuple(values.shape)} on {values.device}")


def mixed(name: str, what: str) -> RuntimeError:
    """Returns torch's error for tensors on two devices."""
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
        f"({what} in {name}; simulated)"
    )
