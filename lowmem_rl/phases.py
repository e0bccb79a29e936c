"""The phases of a run: one list, one vocabulary."""

from typing import Literal

Phase = Literal[
    "load",  # the model and its adapter
    "rollout",  # sampling
    "scoring",  # rewards
    "advantages",  # from scores to micro-batches
    "logprobs",  # of the old and the reference policy, if the loss needs them
    "backward",  # forward and backward of the micro-batches
    "optimizer",  # clipping and the optimizer's step
    "between",  # two optimizer steps: metrics, checkpoint
    "evaluation",
    "save",
]
STEP_PHASES: tuple[Phase, ...] = ("rollout", "scoring", "logprobs", "backward", "optimizer")
"""Those that are timed in each step, in the order of time; advantages count as `logprobs`."""
MEASURED_PHASES: tuple[Phase, ...] = ("rollout", "logprobs", "backward", "optimizer")
"""Those of a step whose memory is estimated and measured."""
OTHER = "other"
"""Time of a step that belongs to no phase."""


def seconds_key(phase: str) -> str:
    """Returns the key of a phase's seconds in metrics.jsonl, which calls the backward phase `update`."""
    return "update_s" if phase == "backward" else f"{phase}_s"
