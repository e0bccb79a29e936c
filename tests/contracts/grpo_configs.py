"""Fields of TRL's own GRPOConfig: `python -m tests.contracts.grpo_configs`, arguments by name in, fields by name out.

JSON on both sides. A process of its own, because Unsloth replaces the class wherever it has been imported.
"""
# ruff: noqa: TID253, T201  # this process exists to load it

import json
import sys

from trl import GRPOConfig

FIELDS = ("generation_batch_size", "num_generations", "steps_per_generation")

configs = {name: GRPOConfig(**arguments) for name, arguments in json.load(sys.stdin).items()}
print("ROW" + json.dumps({name: {field: getattr(one, field) for field in FIELDS} for name, one in configs.items()}))
