"""Matrix products: how much of a step's time is inside them, and how near they come to this machine's peak.

    python -m lowmem_rl_bench.step.matrix_products --threads 1

prints the peak as JSON: operations a second of products with 32 rows, as decoding has them, which are bound by reading
the weight, and with more. In decoding no product is faster than the first, whatever else is saved.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_SIDE = 1536
"""Of the square weight: 9 MiB in float32, more than a core's own cache holds, as all weights of a model are."""
_ROWS = (32, 256, 2048)
_SECONDS = 0.5
"""For each number of rows. The fastest product counts: other work of the machine can only slow it down."""
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv", "bitsandbytes::gemv")
"""Starts of the names of operators that multiply; `linear` and `matmul` call these."""
_ATTENTION = ("aten::_scaled_dot_product", "aten::scaled_dot_product")


class ProductsProfile:
    """One step whose products are timed, on a CPU. The step is none of the compared ones.

    It costs tens of microseconds an operator, so the share of small products comes out too low. Of an operator only
    sums are kept: PyTorch's profiler keeps each event, tens of GB for a step of a model with 135 M parameters in 4 bit.
    It does not see other threads: of transformers' continuous batching only the update.
    """

    def __init__(self) -> None:
        self._flops, self._clock = FlopCounterMode(display=False), _OperatorClock()
        self._flops.__enter__()
        self._clock.__enter__()
        self._began = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Returns seconds of the step, inside matrix products and inside attention; and the products' operations."""
        step_s = time.perf_counter() - self._began
        self._clock.__exit__(None, None, None)
        self._flops.__exit__(None, None, None)
        counted = self._flops.get_flop_counts().get("Global", {})
        named = {str(operator).replace(".", "::"): count for operator, count in counted.items()}
        operations = sum(count for name, count in named.items() if name.startswith(_PRODUCTS))
        return {"step_s": step_s, **self._clock.seconds, "operations": float(operations)}


class _OperatorClock(TorchDispatchMode):
    """Adds up the seconds inside products and inside fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = {"products_s": 0.0, "attention_s": 0.0}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Times an operator; one that consists of others, such as `linear` without autograd, is split."""
        name, kwargs = func.name(), kwargs or {}
        kind = "products_s" if name.startswith(_PRODUCTS) else "attention_s" if name.startswith(_ATTENTION) else None
        if kind is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        began = time.perf_counter()
        result = func(*args, **kwargs)
        self.seconds[kind] += time.perf_counter() - began
        return result


def shares(profile: Mapping[str, float], peak: Mapping[str, float]) -> dict[str, float]:
    """Returns the share of the step inside products and attention, and the products' speed over the machine's peak."""
    step_s = profile["step_s"]
    return {
        "products": profile["products_s"] / step_s,
        "attention": profile["attention_s"] / step_s,
        "of_peak": profile["operations"] / max(profile["products_s"], 1e-9) / max(peak.values()),
    }


def measure_peak(dtype: str = "float32", rows: tuple[int, ...] = _ROWS) -> dict[str, float]:
    """Returns the operations a second of this process's threads, by number of rows as text."""
    weight = torch.randn(_SIDE, _SIDE).to(getattr(torch, dtype))
    with torch.inference_mode():
        return {str(count): _fastest(torch.randn(count, _SIDE).to(weight.dtype), weight) for count in rows}


def _fastest(x: torch.Tensor, weight: torch.Tensor) -> float:
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _SECONDS or best == float("inf"):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - start)
    return 2 * len(x) * weight.numel() / best


def peak_of_arms(dtype: str) -> dict[str, float]:
    """Returns the peak of one thread, on which the arms compute, from a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--threads", "1", "--dtype", dtype]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    found: dict[str, float] = json.loads(done.stdout)["operations_per_s"]
    return found


def main() -> None:
    """Prints the peak of this machine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rows", type=int, nargs="+", default=_ROWS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure_peak(options.dtype, tuple(options.rows))
    about = {"threads": options.threads, "dtype": options.dtype, "weight": [_SIDE, _SIDE]}
    sys.stdout.write(json.dumps(about | {"operations_per_s": found}) + "\n")


if __name__ == "__main__":
    main()
