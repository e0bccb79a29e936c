"""What is measured: a stack, the settings of its run, and which of our savings is off."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.planning.overrides import with_overrides

Stack = Literal["ours", "trl", "unsloth"]
Off = Literal[
    "prompts read once",
    "prompts trained on once",
    "finished rows leave",
    "sorted and trimmed",
    "dead rows out",
    "copies kept",
    "update compares",
]
"""Savings of ours that no setting of a run turns off."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One process of the benchmark."""

    name: str
    stack: Stack
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    off: Off | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of TRL's `GRPOConfig`, over those of the run."""

    def configure(self, config: RunConfig) -> RunConfig:
        """Returns the configuration that this arm trains."""
        return with_overrides(config, self.settings)


@dataclass(frozen=True, slots=True)
class ArmTask:
    """What an arm trains. `out`.gradients.npz gets a replay's first gradient, `out`.weights.npz the last adapter."""

    out: str
    settings: Mapping[str, Any]
    seed: int = 0
    workload: str | None = None
    """File of a replay."""
    examples: str | None = None
    """File of a live run's data."""
    noise: bool = False
    """A live run takes the tokens that our engine's random streams pick, in every arm."""


_TRL_MICRO_BATCH = 8
"""The default `per_device_train_batch_size` of transformers, TRL and Unsloth's notebooks on GRPO."""
_DEFAULTS = {"memory.micro_batch": _TRL_MICRO_BATCH, "memory.checkpointing": "plain"}
_FAIR = {"memory.checkpointing": "none"}

OURS = Arm("ours", "ours", "lowmem-rl as `train` runs it")
TRL = Arm("trl", "trl", "plain TRL at its defaults: micro-batches of 8, checkpointing on", _DEFAULTS)
TRL_FAIR = Arm("trl_fair", "trl", "plain TRL, checkpointing off and our micro-batch", _FAIR)
UNSLOTH = Arm(
    "unsloth",
    "unsloth",
    "Unsloth at its defaults: micro-batches of 8, its checkpointing",
    _DEFAULTS | {"memory.checkpointing": "unsloth"},
)
UNSLOTH_FAIR = Arm("unsloth_fair", "unsloth", "Unsloth, checkpointing off and our micro-batch", _FAIR)
TRL_CONTINUOUS = Arm(
    "trl_continuous",
    "trl",
    "plain TRL with transformers' continuous batching, checkpointing off and our micro-batch",
    _FAIR,
    arguments={"use_transformers_continuous_batching": True},
)
OTHERS = (TRL, TRL_FAIR, UNSLOTH, UNSLOTH_FAIR)
NAMED_ONLY = (TRL_CONTINUOUS,)
"""Measured if they are named."""

ABLATIONS = (
    Arm("dead_rows_kept", "ours", "rows without an advantage are trained on", off="dead rows out"),
    Arm("trl_layout", "ours", "micro-batches neither sorted nor trimmed", off="sorted and trimmed"),
    Arm("prompts_per_row_update", "ours", "each row's update reads its prompt", off="prompts trained on once"),
    Arm("prompts_per_row_rollout", "ours", "each row's rollout reads its prompt", off="prompts read once"),
    Arm("finished_stay", "ours", "finished rows stay until the last one ends", off="finished rows leave"),
    Arm("quantized", "ours", "rollouts on the 4-bit weights", {"rollout.weights": "quantized"}),
    Arm("copies_made_again", "ours", "each rollout expands all layers again, in new memory", off="copies kept"),
    Arm("compared_separately", "ours", "each rollout's log-probs have a forward of their own", off="update compares"),
    Arm("generate", "ours", "transformers' generate instead of our engine", {"rollout.engine": "generate"}),
    Arm("checkpointing", "ours", "activations computed twice", {"memory.checkpointing": "plain"}),
    Arm("states_not_kept", "ours", "the update computes frozen layers again", {"memory.kept_states": "off"}),
    Arm(
        "every_layer",
        "ours",
        "weights learn in every layer, whatever trainable.layers is",
        {"trainable.layers": "all", "memory.kept_states": "off"},
    ),
)
"""Ours with one saving off at a time. An arm whose settings are the run's own already is left out."""

ARMS = {arm.name: arm for arm in (OURS, *OTHERS, *NAMED_ONLY, *ABLATIONS)}
