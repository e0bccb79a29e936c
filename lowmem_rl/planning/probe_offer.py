"""The offer to measure an unknown pass rate, with what that takes."""

from lowmem_rl.planning.plan import Plan
from lowmem_rl.planning.step_time import probe_time

EXAMPLES, SAMPLES = 64, 8
"""What `lowmem-rl probe` samples if it is asked for nothing else."""


def is_unknown(plan: Plan) -> bool:
    """Returns whether the signal is not known: no pass rate is, and no other setting decides."""
    return plan.signal.pass_rate.kind == "unknown" and plan.signal.verdict in ("ok", "note")


def probe_offer(plan: Plan) -> str:
    """Returns the command that measures the pass rate, and what it takes: seconds on a card, else rollouts."""
    completions = EXAMPLES * SAMPLES
    if time := probe_time(plan.config, plan.target.shape, plan.target.card, completions):
        return f"`lowmem-rl probe` measures it in {time.low:.0f} to {time.high:.0f} s and the loading"
    rollouts = max(1, round(completions / plan.config.rows_per_rollout))
    return f"`lowmem-rl probe` measures it in the time of {rollouts} rollout{'s' if rollouts > 1 else ''}"
