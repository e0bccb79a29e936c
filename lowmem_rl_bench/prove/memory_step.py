"""The longest step of a preset, as `profile --measure` takes it, with what its prediction was computed from."""

from collections.abc import Mapping
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.entrypoints.measure_memory import measure
from lowmem_rl_bench.prove.processes import serve


def take(order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the memory part of a record. Raises `DoesNotFit` if memory runs out."""
    measured = measure(resolve(preset=order["preset"], settings=order["settings"]))
    workload, model = measured.rows[0].workload, measured.rows[0].model
    return {
        "step": measured.step,
        "prompt_tokens": measured.lengths.prompt_tokens,
        "completion_tokens": measured.lengths.completion_tokens,
        "kept_share": workload["kept_share"],
        "expandable_segments": workload["expandable_segments"],
        "file_bytes": model["file_bytes"],
        "quantised": model["quantised"],
        "phases": measured.to_json()["phases"],
    }


if __name__ == "__main__":
    serve(take)
