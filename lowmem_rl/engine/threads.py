"""How many threads of a CPU compute: measured when a model is loaded, for more are not always faster.

In the short layers of a small model threads mostly wait for each other, and next to another busy process much longer:
there a step of the embedded model took 66 s on two threads and 0.7 s on one (two x86 cores, 2026-11-20). Sums depend on
their number, so a resumed run computes with as many as it began with.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.errors import LowMemError, RunDirError
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.storage.run_dir import RunDir, read_json

if TYPE_CHECKING:
    from lowmem_rl.engine.decoder import Map

VARIABLE = "OMP_NUM_THREADS"
_WORTH = 1.2
"""More threads must be faster by this factor: the other cores score completions, and choices by noise would make runs
of one seed differ."""
_SECONDS, _PASSES = 0.3, 15
"""For all numbers of threads together, and the most passes with each."""
_WIDEST = 768
"""Of the measured layer: a wider one divides its work at least as well."""
_MOST_ROWS, _POSITIONS = 64, 64
_MOST = 4096
"""Of threads in a record."""


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """How many threads compute, and why."""

    number: Annotated[int, Field(ge=1, le=_MOST)]
    why: str
    layer_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of a layer for a token of each row, by the number of threads, if that was measured."""

    def __str__(self) -> str:
        measured = ", ".join(f"{number}: {ms:.3g} ms" for number, ms in self.layer_ms.items())
        return f"{self.number} ({self.why}{': a layer takes with ' + measured if measured else ''})"

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def set_threads(config: RunConfig, device: Device, recorded: ThreadChoice | None = None) -> ThreadChoice | None:
    """Lets torch compute with the `recorded` threads of a run, or those that are chosen now; None on a GPU."""
    if device.is_gpu:
        return None
    import torch

    found = recorded or _chosen(config, device)
    torch.set_num_threads(found.number)
    return found


def recorded_threads(run_dir: RunDir) -> ThreadChoice | None:
    """Returns what a run computes with; None if it has not recorded it. Raises `RunDirError` for a damaged file."""
    if not run_dir.engine.is_file():
        return None
    record = read_json(run_dir.engine)
    try:
        return TypeAdapter(ThreadChoice | None).validate_python(record.get("threads"))
    except (AttributeError, ValueError) as error:
        what = f"{run_dir.engine} does not say how many threads compute."
        raise RunDirError(what, hint="Restore the file that `train` wrote.") from error


def _chosen(config: RunConfig, device: Device) -> ThreadChoice:
    import torch

    if (given := _given()) is not None:
        return ThreadChoice(given, f"{VARIABLE} is set")
    most = usable_cores()
    if most == 1:
        return ThreadChoice(1, "the only core")
    with suppress(LowMemError):
        shape = load_shape(config.model.name, config.model.revision)
        return _measured(shape, min(config.rollout_rows, _MOST_ROWS), device.dtype, most)
    return ThreadChoice(torch.get_num_threads(), "torch's choice: the model's shape is not known")


def _given() -> int | None:
    """Returns the user's number; as in OpenMP a list is one by nesting level, and what is no number is ignored."""
    first = os.environ.get(VARIABLE, "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def usable_cores() -> int:
    """Returns the cores on which this process may run."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@lru_cache(maxsize=8)  # the models of one process compute with the same number
def _measured(shape: ModelShape, rows: int, dtype: str, most: int) -> ThreadChoice:
    """Measures 1, 2, 4, ... threads and all, and returns the fewest to which more are not worth it."""
    run = _layer(shape, rows, dtype)
    numbers = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
    seconds = {number: _seconds(run, number, _SECONDS / len(numbers)) for number in numbers}
    number = fewest_worth_it(seconds)
    return ThreadChoice(number, "measured", {str(n): round(1000 * s, 4) for n, s in seconds.items()})


def fewest_worth_it(seconds: Mapping[int, float]) -> int:
    """Returns the fewest threads that take less than `_WORTH` times as long as the fastest number."""
    return min(number for number, one in seconds.items() if one < _WORTH * min(seconds.values()))


def _seconds(run: Callable[[], object], threads: int, budget_s: float) -> float:
    """Returns the median time of a pass with so many threads, after one in which they start."""
    import torch

    torch.set_num_threads(threads)
    return median(list(_passes(run, budget_s))[1:])


def _passes(run: Callable[[], object], budget_s: float) -> Iterator[float]:
    """Yields the seconds of each pass, two at least."""
    began = time.perf_counter()
    for number in range(_PASSES + 1):
        start = time.perf_counter()
        run()
        yield time.perf_counter() - start
        if number and time.perf_counter() - began > budget_s:
            return


def _layer(shape: ModelShape, rows: int, dtype: str) -> Callable[[], object]:
    """Returns what reads one token of each row in one layer of the model, as a rollout does."""
    import torch
    from torch.nn.functional import linear, rms_norm

    from lowmem_rl.engine.decoder import Block, Decoder, KVCache, step

    kind: Any = {"dtype": getattr(torch, dtype)}
    hidden, mlp = min(shape.hidden_size, _WIDEST), min(shape.intermediate_size, 4 * _WIDEST)
    heads = max(1, min(shape.num_heads, _WIDEST // shape.head_dim) // shape.num_kv_heads) * shape.num_kv_heads

    def product(inputs: int, outputs: int) -> "Map":
        return partial(linear, weight=torch.full((outputs, inputs), 0.01, **kind))

    norm = partial(rms_norm, normalized_shape=(hidden,), weight=torch.ones(hidden, **kind))
    qkv = product(hidden, (heads + 2 * shape.num_kv_heads) * shape.head_dim)
    out, gate_up, down = product(heads * shape.head_dim, hidden), product(hidden, 2 * mlp), product(mlp, hidden)
    block = Block(norm, qkv, None, out, norm, gate_up, down)
    sizes = heads, shape.num_kv_heads, shape.head_dim
    states, frequencies = torch.ones(rows, hidden, **kind), torch.ones(shape.head_dim // 2)
    decoder = Decoder(lambda ids: states, (block,), norm, norm, *sizes, frequencies, 1.0, kind["dtype"])
    cache, places = KVCache(decoder, rows, _POSITIONS), torch.full((rows,), _POSITIONS - 1)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return step(decoder, places, places, cache, _POSITIONS)

    return run
