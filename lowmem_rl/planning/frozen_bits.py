"""Why `model.bits = "auto"` chose 4 or 16 bits.

QLoRA is not always the smaller one: to sample fast it expands a 16-bit copy of its weights next to the 4-bit ones.
"""

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.planning.search import PlanTarget, choose, possible_bits
from lowmem_rl.units import GIB

KEY = "model.bits"


def method_name(config: RunConfig, bits: int) -> str:
    """Returns what a run is called whose frozen weights have that width."""
    if config.trainable.method == "full":
        return f"whole weights over {bits} bit"
    return "QLoRA" if bits == 4 else "LoRA"


def why_these_bits(written: RunConfig, chosen: RunConfig, target: PlanTarget) -> str | None:
    """Returns why `auto` chose this width, against the other at its own best settings; None if it was not asked."""
    bits = chosen.model.bits
    if written.model.bits != "auto" or bits == "auto":
        return None
    others = [other for other in possible_bits(written, target.shape) if other != bits]
    if not others:
        return f"{KEY}=auto is {bits}: the other width cannot be trained here"
    other = choose(with_overrides(written, {KEY: others[0]}), target)
    ratio = target.relative_step_time(chosen) / target.relative_step_time(other)
    ours, theirs = (f"{target.planned(run).upper_bytes / GIB:.1f}" for run in (chosen, other))
    fits = "takes" if target.fits(other) else "does not fit with"
    mine, its = (method_name(written, width) for width in (bits, others[0]))
    return (
        f"{KEY}=auto is {bits}: {mine} takes {ours} GiB at most and {ratio:.2f}x the step time of "
        f"{its}, which {fits} {theirs}"
    )
