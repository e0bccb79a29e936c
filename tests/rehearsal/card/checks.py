"""What CUDA's kernels refuse and the CPU's take: devices, dtypes, index ranges, generators.

Not checked are the dtypes of other operations than products and `layer_norm`, and indices without data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from tests.rehearsal.card import waits
from tests.rehearsal.card.memory import CPU, CUDA, alias
from tests.rehearsal.card.state import STATE

COPIES = frozenset(f"aten::{name}" for name in ("copy_", "_to_copy", "to", "set_", "lift_fresh", "_copy_from"))
BETWEEN_DEVICES = COPIES | {"aten::_foreach_copy_"}
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
MASK_FILLS = frozenset({"aten::masked_fill", "aten::masked_fill_"})
PRODUCTS = {
    "aten::mm": "addmm_cuda",
    "aten::addmm": "addmm_cuda",
    "aten::addmm_": "addmm_cuda",
    "aten::linear": "addmm_cuda",
    "aten::matmul": "addmm_cuda",
    "aten::bmm": "baddbmm_cuda",
    "aten::baddbmm": "baddbmm_cuda",
    "aten::baddbmm_": "baddbmm_cuda",
    "aten::mv": "addmv_impl_cuda",
    "aten::addmv": "addmv_impl_cuda",
    "aten::dot": "dot",
}
"""Matrix products, by CUDA's name for their kernel. They take one floating-point dtype, the bias's included."""
NORMS = frozenset({"aten::layer_norm", "aten::native_layer_norm"})
LOOKUPS = frozenset({"aten::embedding", "aten::index", "aten::_unsafe_index", "aten::gather", "aten::index_select"})
CHECKED = frozenset(PRODUCTS) | NORMS | LOOKUPS


def check_call(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], is_mixed: bool) -> None:
    """Raises what CUDA raises for arguments on two devices, of two dtypes, or out of range."""
    if is_mixed:
        _check_devices(func, name, args, kwargs)
    if name in CHECKED and any(tensor.is_cuda for tensor in tensors_in(args)):
        if name in LOOKUPS:
            _check_ranges(name, args)
        elif name in PRODUCTS:
            _check_product(func, name, args)
        else:
            _check_norm(args)


def target_of(name: str, args: tuple[Any, ...], asked: list[torch.device], has_card: bool) -> torch.device:
    """Returns the device of an operation's result."""
    if asked and asked[0].type != "meta":
        return CUDA if asked[0].type == "cuda" else asked[0]
    if name == "aten::to" and len(args) > 1 and isinstance(args[1], torch.Tensor):
        return CUDA if args[1].is_cuda else args[1].device
    return CUDA if has_card else CPU


def check_generator(target: torch.device, generator: torch.Generator | None) -> None:
    """Raises `RuntimeError` for a host generator of numbers on the card (ATen/core/Generator.h, check_generator)."""
    if generator is not None and generator.device.type != target.type:
        raise RuntimeError(f"Expected a '{target.type}' device type for generator but found '{generator.device.type}'")


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors of nested arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def mixed(name: str, what: str) -> RuntimeError:
    """Returns torch's error for tensors on two devices."""
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
        f"({what} in {name}; simulated)"
    )


def _check_devices(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if name in BETWEEN_DEVICES or name.startswith("bitsandbytes::optimizer"):  # paged states are host tensors
        return
    if name in waits.INDEXING:
        _check_index(name, args)
        return
    if name in MASK_FILLS and not args[1].is_cuda:
        raise RuntimeError("expected self and mask to be on the same device, but got mask on cpu and self on cuda:0")
    takes_scalars = torch.Tag.pointwise in func.tags or name in HOST_SCALARS or "_foreach" in name or "_amp" in name
    for tensor in tensors_in((args, kwargs)):
        if tensor.device.type == "cpu" and not (takes_scalars and tensor.dim() == 0):
            raise mixed(name, f"a host tensor {tuple(tensor.shape)} {tensor.dtype}")
    written = [args[place] if place < len(args) else kwargs.get(key) for place, key in _written(func)]
    if any(tensor.device.type == "cpu" for tensor in tensors_in(written)):
        raise mixed(name, "what is written is on the host")


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Returns places and names of the arguments that an operation writes."""
    known = enumerate(func._schema.arguments)
    return tuple((at, each.name) for at, each in known if each.alias_info is not None and each.alias_info.is_write)


def _check_index(name: str, args: tuple[Any, ...]) -> None:
    itself, indices = args[0], args[1]
    if not itself.is_cuda and any(isinstance(index, torch.Tensor) and index.is_cuda for index in indices):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    values = args[2] if len(args) > 2 else None
    if isinstance(values, torch.Tensor) and values.is_cuda != itself.is_cuda and values.dim():
        raise mixed(name, f"values {tuple(values.shape)} on {values.device}")


def _check_product(func: Any, name: str, args: tuple[Any, ...]) -> None:
    """ATen/native/cuda/Blas.cpp: addmm_out_cuda_impl and the like."""
    dtypes = [value.dtype for value in args if isinstance(value, torch.Tensor)]
    if "dtype" in func._overloadname:  # the bias may have the dtype that is asked for
        dtypes = dtypes[-2:]
    if len(set(dtypes)) > 1:
        kinds = ", ".join(str(dtype)[6:] for dtype in dtypes)
        raise RuntimeError(f"expected the matrices of {name} and their bias to have the same dtype, but got {kinds}")
    if not (dtypes[0].is_floating_point or dtypes[0].is_complex):
        raise NotImplementedError(f"\"{PRODUCTS[name]}\" not implemented for '{_scalar_type(dtypes[0])}'")


def _check_norm(args: tuple[Any, ...]) -> None:
    """ATen/native/cuda/layer_norm_kernel.cu takes weight and bias of the input's dtype."""
    for tensor in args[2:4]:
        if isinstance(tensor, torch.Tensor) and tensor.dtype != args[0].dtype:
            raise RuntimeError(
                f"expected scalar type {_scalar_type(args[0].dtype)} but found {_scalar_type(tensor.dtype)}"
            )


def _scalar_type(dtype: torch.dtype) -> str:
    """Returns the name of a dtype in C++ (c10/core/ScalarType.h)."""
    names = {"float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "float64": "Double", "int64": "Long"}
    return names.get(str(dtype)[6:], str(dtype)[6:])


def _check_ranges(name: str, args: tuple[Any, ...]) -> None:
    """Without data the CPU's kernel does not look: an index out of range ends a card's process by an assertion."""
    if STATE.phantom_bytes is None:
        return
    source = args[0]
    if name == "aten::embedding":
        _check_range(name, args[1], source.shape[0])
    elif name in ("aten::gather", "aten::index_select"):
        _check_range(name, args[2], source.shape[args[1]] if source.dim() else 1)
    else:
        _check_indices(name, source, args[1])


def _check_indices(name: str, source: torch.Tensor, indices: Any) -> None:
    axis = 0
    for index in indices:
        if waits.is_mask(index):
            axis += index.dim()
            continue
        if isinstance(index, torch.Tensor):
            _check_range(name, index, source.shape[axis], from_end=True)
        axis += 1


def _check_range(name: str, index: torch.Tensor, size: int, *, from_end: bool = False) -> None:
    from tests.rehearsal.card import phantom  # it imports this module

    if not index.numel() or phantom.is_large(index):
        return
    low = alias(index) if index.is_cuda else index
    least, most = int(low.min()), int(low.max())
    if least < (-size if from_end else 0) or most >= size:
        raise IndexError(f"index {least if least < 0 else most} is out of bounds for {size} in {name} (simulated)")
