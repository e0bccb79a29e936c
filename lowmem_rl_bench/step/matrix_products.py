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

import torch

_SIDE = 1536
"""Of the square weight: 9 MiB in float32, more than a core's own cache holds, as all weights of a model are."""
_ROWS = (32, 256, 2048)
_SECONDS = 0.5
"""For each number of rows. The fastest product counts: other work of the machine can only slow it down."""
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv", "bitsandbytes::gemv")
"""Starts of the names of operators that multiply; `linear` and `matmul` call these."""
_ATTENTION = ("aten::_scaled_dot_product", "aten::scaled_dot_product")


class ProductsProfile:
    """One step under PyTorch's profiler, on a CPU. It costs microseconds an operator: the step is none of the timed.

    It does not see other threads: of transformers' continuous batching only the update.
    """

    def __init__(self) -> None:
        self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True)
        self._profile.start()
        self._began = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Returns seconds: of the step, inside matrix products, inside fused attention; and the products' operations.

        An operator's time is its own, without that of operators that it calls.
        """
        step_s = time.perf_counter() - self._began
        self._profile.stop()
        found = {"step_s": step_s, "products_s": 0.0, "attention_s": 0.0, "operations": 0.0}
        for event in self._profile.key_averages():
            if event.key.startswith(_PRODUCTS):
                found["products_s"] += event.self_cpu_time_total / 1e6
                found["operations"] += event.flops
            elif event.key.startswith(_ATTENTION):
                found["attention_s"] += event.self_cpu_time_total / 1e6
        return found


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
