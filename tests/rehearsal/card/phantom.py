"""Operations on tensors that are too large to exist here: by shapes, dtypes and bytes alone.

A floating-point tensor of more than `STATE.phantom_bytes` has address space and no data. Integers have theirs, whose
values decide shapes: ids, masks, lengths. Small results of large tensors are zeros; tokens picked from data that does
not exist are `STATE.picked`.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from tests.rehearsal.card import waits
from tests.rehearsal.card.checks import check_call, check_generator, target_of
from tests.rehearsal.card.memory import CPU, card_storage, on_storage, phantom_storage, view_on
from tests.rehearsal.card.nested import mapped
from tests.rehearsal.card.shape_plans import Arguments, Unkeyed
from tests.rehearsal.card.state import STATE

PICKING = frozenset({"argmax", "multinomial", "max", "topk", "sort", "searchsorted"})
FACTORIES = frozenset({"empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "arange"})
NOT_BY_SHAPE = frozenset({"aten::set_", "aten::lift_fresh"})
EMPTIES = frozenset(
    f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
)
VALUES = {"aten::_local_scalar_dense": 0, "aten::equal": True, "aten::allclose": True}
"""What is read of data that does not exist."""
META = torch.device("meta")

MOST_INTEGERS = 2**26
"""Bytes above which integers have no data either."""


def is_large(tensor: torch.Tensor) -> bool:
    """Returns whether a tensor has no data."""
    return lacks(tensor.numel() * tensor.element_size(), tensor.dtype)


def lacks(nbytes: int, dtype: torch.dtype) -> bool:
    """Returns whether so many bytes of a dtype have no data; 4-bit weights are uint8."""
    is_number = dtype.is_floating_point or dtype is torch.uint8 or nbytes > MOST_INTEGERS
    return is_number and nbytes > (STATE.phantom_bytes or 0)


def lacks_data(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Returns whether an operation is done by its shapes alone: on tensors without data, and views on the card."""
    if name in NOT_BY_SHAPE:
        return False
    if func.is_view:
        return isinstance(args[0], torch.Tensor) and args[0].is_cuda
    device = kwargs.get("device")
    on_card = device is not None and torch.device(device).type == "cuda"
    for tensor in _tensors(args, kwargs):
        if is_large(tensor):
            return True
        on_card |= tensor.is_cuda
    base = name.removeprefix("aten::")
    if not on_card or not (base in FACTORIES or base.startswith(("new_", "full"))):
        return False
    size = next((value for value in args if isinstance(value, list | tuple)), None)
    dtype = kwargs.get("dtype") or _dtype_of(base, args)
    return size is not None and lacks(math.prod(size) * dtype.itemsize, dtype)


def _dtype_of(base: str, args: tuple[Any, ...]) -> torch.dtype:
    """Returns the dtype of a factory's result if the call gives none."""
    if base.startswith("new_"):
        return args[0].dtype
    if base == "full" and isinstance(args[1], int):
        return torch.bool if isinstance(args[1], bool) else torch.int64
    return torch.get_default_dtype()


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    found = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [item for item in value if isinstance(item, torch.Tensor)]
    return found


PLANS: dict[Any, Any] = {}
"""What operations make of arguments of some shapes."""


def execute(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns the operation's result without data. Raises what `checks` does."""
    on_card = {tensor.is_cuda for tensor in _tensors(args, kwargs) if tensor.device != META}
    check_call(func, name, args, kwargs, len(on_card) > 1)
    args = _by_places(args) if name in waits.INDEXING else args
    try:
        arguments = Arguments(func, args, kwargs)
    except Unkeyed:
        return _by_shape(func, name, args, kwargs, has_card=True in on_card)
    plan = PLANS.get(arguments.key)
    if plan is None:
        result = _by_shape(func, name, args, kwargs, has_card=True in on_card)
        PLANS[arguments.key] = arguments.plan_of(result)
        return result
    picks = name.removeprefix("aten::") in PICKING
    return arguments.made(plan, lambda nbytes, dtype: new_storage(nbytes, dtype, picks=picks))


def _by_places(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replaces masks among an indexing's arguments by the places that they choose, as CUDA's kernels do."""
    from tests.rehearsal.card.dispatch import execute as on_card

    indices: list[Any] = []
    for index in args[1]:
        if waits.is_mask(index):
            with waits.uncounted():
                places = on_card(torch.ops.aten.nonzero.default, (index,), {})
            indices += [on_card(torch.ops.aten.select.int, (places, 1, axis), {}) for axis in range(index.dim())]
        else:
            indices.append(index)
    return (args[0], indices, *args[2:])


def _by_shape(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, has_card: bool) -> Any:
    """Asks PyTorch's shape functions."""
    if name in VALUES:
        return VALUES[name]
    operation = ShapeOperation()
    low_args = [operation.lower(value) for value in args]
    low_kwargs = {key: operation.lower(value) for key, value in kwargs.items() if key != "pin_memory"}
    if "device" in kwargs:
        low_kwargs["device"] = META
    operation.target = target_of(name, args, operation.asked, has_card)
    check_generator(operation.target, low_kwargs.pop("generator", None))
    try:
        result = func(*low_args, **low_kwargs)
    except NotImplementedError:  # no shape function: bitsandbytes' optimizers, which write in place
        if not func._schema.is_mutable:
            raise
        return args[0] if func._schema.returns else None
    operation.picks = name.removeprefix("aten::") in PICKING
    return result if META in operation.asked else mapped(result, operation.lifted)


def new_storage(nbytes: int, dtype: torch.dtype, *, picks: bool) -> Any:
    """Returns a card storage: without data, or of zeros, or of picked tokens."""
    if lacks(nbytes, dtype):
        return phantom_storage(nbytes)
    host = torch.zeros(nbytes, dtype=torch.uint8)
    if picks and dtype == torch.int64:
        host.view(torch.int64).fill_(STATE.picked)
    return card_storage(host.untyped_storage())


class ShapeOperation:
    """The arguments of one operation as meta tensors, its result as a card tensor without data."""

    __slots__ = ("asked", "by_storage", "kept", "known", "metas", "new", "picks", "target")

    def __init__(self) -> None:
        self.known: dict[int, torch.Tensor] = {}
        self.by_storage: dict[int, torch.Tensor] = {}
        self.metas: dict[int, Any] = {}
        """A meta storage for each storage that was passed, by address: views of one stay views of one."""
        self.kept: list[torch.Tensor] = []
        self.new: dict[int, tuple[Any, torch.Tensor]] = {}
        """A card storage for each meta storage of a result: results may share one."""
        self.picks = False
        self.asked: list[torch.device] = []
        self.target = CPU

    def lower(self, value: Any) -> Any:
        """Returns an argument without data."""
        if isinstance(value, torch.Tensor):
            return value if value.device.type == "meta" else self._lower_tensor(value)
        if isinstance(value, torch.device):
            self.asked.append(value)
            return META
        if isinstance(value, list | tuple):
            return type(value)(self.lower(item) for item in value) if type(value) in (list, tuple) else value
        return value

    def _lower_tensor(self, value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in self.metas:
            whole = torch.empty(storage.nbytes(), dtype=torch.uint8, device=META)
            self.metas[storage.data_ptr()] = whole.untyped_storage()
        base = self.metas[storage.data_ptr()]
        meta = torch.empty(0, dtype=value.dtype, device=META).set_(
            base, value.storage_offset(), value.size(), value.stride()
        )
        self.kept.append(meta)
        self.known[id(meta)] = self.by_storage[base._cdata] = value
        return meta

    def lifted(self, value: torch.Tensor) -> torch.Tensor:
        """Returns a result on its device."""
        if id(value) in self.known:
            return self.known[id(value)]
        owner = self.by_storage.get(value.untyped_storage()._cdata)
        if owner is not None and owner.device.type == self.target.type:
            if self.target.type == "cuda":
                return view_on(owner, value)
            return owner.as_strided(value.size(), value.stride(), value.storage_offset())
        if self.target.type != "cuda":
            return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype).zero_()
        storage = value.untyped_storage()
        if storage._cdata not in self.new:
            self.new[storage._cdata] = new_storage(storage.nbytes(), value.dtype, picks=self.picks), value
        return on_storage(self.new[storage._cdata][0], value)


def unseen(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a contiguous card tensor of the same shape and dtype without data."""
    meta = torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
    return on_storage(phantom_storage(tensor.numel() * tensor.element_size()), meta)
