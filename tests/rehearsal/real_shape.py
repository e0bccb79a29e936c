"""A training from loading to report at a real model's widths, with few layers and the preset's own settings.

    python -m tests.rehearsal.real_shape [PRESET ...] [--layers N]

The tensors have no data: shapes, dtypes, devices and the ways through the code are the real ones. Group size, rows of a
wave and of a micro-batch, checkpointing, loss and beta are the preset's; completions are short, for each token of each
layer takes the simulation some milliseconds. About 10 s; deepseekmath-7b-80gb, with 1024 micro-batches, 140 s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.models.lookup import load_shape
from tests.rehearsal.bytes import PHANTOM_BYTES, agree, card_of
from tests.rehearsal.scenarios import gpu_presets, planned
from tests.rehearsal.shapes import write_model
from tests.rehearsal.stage import Ended, Stage

LAYERS = 2
SHORT = (
    "task.name=arithmetic",
    "task.levels=[3]",
    "task.prompt=bare",
    "rewards={random = 1.0}",  # groups whose rewards differ, for any output of a model without data
    "rollout.engine=lowmem",
    "grpo.steps=1",
    "grpo.max_prompt_tokens=128",
    "grpo.max_completion_tokens=32",
    "eval.examples=8",
    "eval.quick_examples=4",
)


def trained(stage: Stage, preset: str, folder: Path, layers: int = LAYERS, **counted: Any) -> Ended:
    """Trains a preset for one step into `folder`/run; `counted` are further settings of `request.Settings`."""
    plan, shape = planned(preset), load_shape(resolve(preset=preset).config.model.name)
    settings = (
        f"model.name={write_model(shape, folder / 'model', layers)}",
        *SHORT,
        f"memory.micro_batch={plan.micro_batch}",
        f"memory.rollout_rows={plan.rollout_rows}",
        f"memory.checkpointing={plan.checkpointing}",
        f"rollout.weights={plan.rollout_weights}",
    )
    given = (argument for setting in settings for argument in ("--set", setting))
    command = ("train", "--preset", preset, *given, "--force", "--out", str(folder / "run"))
    caches = {"XDG_CACHE_HOME": str(folder / "cache")}
    return stage.lowmem(*command, **{"phantom_bytes": PHANTOM_BYTES, "before": agree, "env": caches} | counted)


def main() -> int:
    """Trains what is asked for; returns 1 if one of them does not end well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*")
    parser.add_argument("--layers", type=int, default=LAYERS)
    options = parser.parse_args()
    codes = [_trained(preset, options.layers) for preset in options.presets or gpu_presets()]
    return int(any(codes))


def _trained(preset: str, layers: int) -> int:
    stage = Stage(card_of(preset))
    try:
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            stage.call("builtins:int")  # the server is ready: its start is not counted
            began = time.monotonic()
            ended = trained(stage, preset, Path(folder), layers)
    finally:
        stage.close()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{preset:22s} exit code {ended.code} after {seconds:.0f} s\n")
    if ended.code:
        sys.stdout.write(ended.output[-3000:] + "\n")
    sys.stdout.flush()
    return ended.code


if __name__ == "__main__":
    sys.exit(main())
