"""What the installed stack has, with the GRPO trainer that Unsloth writes for a GPU, as JSON after the word REPORT.

    python -m tests.contracts.rewritten_trainer MEMBERS CASES

MEMBERS are dotted names that should exist, CASES arguments of Unsloth's `fused_linear_rows`. `UNSLOTH_ALLOW_CPU` makes
Unsloth write the trainer on a CPU. It pretends that there is CUDA, so this runs in its own process: one that has loaded
TRL, and in `make test-long` also one that loads Unsloth first.
"""
# ruff: noqa: I001, TID253, T201  # this process exists to load the stack

import functools
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["UNSLOTH_ALLOW_CPU"] = "1"
import unsloth
import torch
import trl
from unsloth.models.rl import _patch_trl_rl_trainers
from unsloth_zoo.fused_losses import fused_linear
from unsloth_zoo.rl_replacements import chunked_hidden_states_selective_log_softmax

from lowmem_rl.config.run_config import MemoryConfig, RunConfig
from lowmem_rl.engine.device import Device


def parameters(cls: type) -> dict[str, list[str]]:
    """Returns the parameters of each method, without `self`."""
    methods = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("__")}
    return {
        name: list(inspect.signature(method).parameters)[is_bound(cls, name) :]
        for name, method in methods.items()
        if inspect.isfunction(method)
    }


def is_bound(cls: type, name: str) -> bool:
    return not isinstance(inspect.getattr_static(cls, name), staticmethod)


def is_there(path: str) -> bool:
    """Returns whether a dotted name is a module's attribute, at any depth."""
    for cut in range(path.count("."), 0, -1):
        parts = path.split(".")
        try:
            functools.reduce(getattr, parts[cut:], importlib.import_module(".".join(parts[:cut])))
        except (ImportError, AttributeError):
            continue
        return True
    return False


def source(cls: type) -> str:
    return "".join(inspect.getsource(base) for base in cls.__mro__ if base is not object)


def mini_batch() -> int:
    """Returns a field of Unsloth's config that TRL's lacks, made with our arguments."""
    from lowmem_rl.trl_adapter.trainer import trainer_arguments

    config = RunConfig(memory=MemoryConfig(checkpointing="unsloth"))
    arguments = trainer_arguments(config, Device("cuda", "bfloat16"), Path("out"))
    return int(trl.GRPOConfig(**arguments | {"bf16": False, "use_cpu": True}).unsloth_grpo_mini_batch)


def scored() -> list[int]:
    """Returns the shape of log-probs that Unsloth takes in chunks without a number of them."""
    hidden, head, index = torch.randn(1, 8, 16), torch.randn(32, 16), torch.zeros(1, 8, dtype=torch.long)
    return list(chunked_hidden_states_selective_log_softmax(hidden, head, index, chunks=None).shape)


def main(members: list[str], cases: list[list[int]]) -> dict[str, Any]:
    """Returns the report; from here on `trl.GRPOTrainer` is Unsloth's."""
    plain = trl.GRPOTrainer
    theirs, found, text = dir(plain), parameters(plain), source(plain)
    _patch_trl_rl_trainers("grpo_trainer")
    from lowmem_rl.trl_adapter.trainer import trainer_class

    rewritten, ours = trl.GRPOTrainer, trainer_class()
    overrides = {name for cls in ours.__mro__ if cls.__module__.startswith("lowmem_rl") for name in vars(cls)}
    fused_linear._budget_bytes = lambda device: 2 * 2**30  # a card with room to spare
    return {
        "chunk_rows": [fused_linear.fused_linear_rows(*case, 4) for case in cases],
        "scored": scored(),
        "rewritten": rewritten.__name__,
        "theirs": theirs,
        "bases": [base.__name__ for base in ours.__mro__],
        "parameters": {"plain": found, "rewritten": parameters(rewritten), "ours": parameters(ours)},
        "overrides": sorted(overrides & set(parameters(rewritten))),
        "sources": {"plain": text, "rewritten": source(rewritten)},
        "mini_batch": mini_batch(),
        "lacking": [path for path in members if not is_there(path)],
        "loading": list(inspect.signature(unsloth.FastLanguageModel.from_pretrained).parameters),
    }


if __name__ == "__main__":
    print("REPORT" + json.dumps(main(*map(json.loads, sys.argv[1:]))))
