"""What PyTorch's pool holds beyond its tensors, as a share of what comes and goes in a step."""

from typing import NamedTuple

from lowmem_rl.memory.workload import LINEAR_LAYERS, Checkpointing, Layer, Logits, Workload


class Kind(NamedTuple):
    """What decides a share, next to the sizes."""

    layer: Layer
    logits: Logits
    checkpointing: Checkpointing
    expandable: bool
    is_eager: bool = False
    """Attention holds all its scores."""


class Shares(NamedTuple):
    """Rows of one length; of varying lengths, the median and the most."""

    one_length: float
    varying: float
    varying_most: float


_WHOLE: dict[Layer, tuple[Logits, ...]] = {
    "unsloth": ("in-place",),
    "plain": ("in-place", "shifted", "held", "divided", "selective", "liger", "full"),
    "fused": ("liger", "fused"),
}
"""How losses around each layer compute whole logits; any other counts as the last."""
_CHUNKED: Logits = "chunked"
_MODES: tuple[Checkpointing, ...] = ("unsloth", "plain", "none")
_EAGER_WHOLE: Logits = "full"
"""What any loss over whole logits counts as if attention is eager."""
KINDS = (
    *(
        Kind(layer, logits, checkpointing, expandable)
        for expandable in (True, False)
        for layer, whole in _WHOLE.items()
        for logits in (_CHUNKED, *whole)
        for checkpointing in _MODES
        if checkpointing != "unsloth" or layer == "unsloth"
    ),
    *(
        Kind("plain", logits, checkpointing, expandable, True)
        for expandable in (True, False)
        for logits in (_CHUNKED, _EAGER_WHOLE)
        for checkpointing in _MODES[1:]
    ),
)


def kind_workload(kind: Kind, rows: int, prompt_tokens: int, completion_tokens: int) -> Workload:
    """Returns a step of QLoRA and GRPO of that kind."""
    return Workload(
        loss="grpo",
        stack="unsloth" if kind.layer == "unsloth" else "trl",
        method="qlora",
        lora_rank=16,
        lora_targets=LINEAR_LAYERS,
        micro_batch=rows,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        group_size=rows,
        rollout_rows=rows,
        checkpointing=kind.checkpointing,
        optimizer="adamw_8bit",
        rollout_engine="generate",
        standby=False,
        reference_pass=False,
        old_logprob_pass=False,
        dynamic_checkpoint=False,
        compute_bytes=2,
        attention="eager" if kind.is_eager else "sdpa" if kind.layer == "plain" else "flash",
        layer=kind.layer,
        logits=kind.logits,
        expandable_segments=kind.expandable,
    )


TABLE: dict[Kind, Shares] = {
    # begin
    Kind("unsloth", "chunked", "unsloth", True): Shares(0.05, 0.05, 0.05),
    Kind("unsloth", "chunked", "plain", True): Shares(0.02, 0.02, 0.02),
    Kind("unsloth", "chunked", "none", True): Shares(0.01, 0.0, 0.0),
    Kind("unsloth", "in-place", "unsloth", True): Shares(0.01, 0.01, 0.01),
    Kind("unsloth", "in-place", "plain", True): Shares(0.01, 0.01, 0.01),
    Kind("unsloth", "in-place", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "chunked", "plain", True): Shares(0.04, 0.04, 0.04),
    Kind("plain", "chunked", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "in-place", "plain", True): Shares(0.01, 0.01, 0.01),
    Kind("plain", "in-place", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "shifted", "plain", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "shifted", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "held", "plain", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "held", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "divided", "plain", True): Shares(0.15, 0.15, 0.15),
    Kind("plain", "divided", "none", True): Shares(0.04, 0.04, 0.04),
    Kind("plain", "selective", "plain", True): Shares(0.12, 0.12, 0.12),
    Kind("plain", "selective", "none", True): Shares(0.04, 0.04, 0.04),
    Kind("plain", "liger", "plain", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "liger", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("plain", "full", "plain", True): Shares(0.15, 0.15, 0.15),
    Kind("plain", "full", "none", True): Shares(0.04, 0.04, 0.04),
    Kind("fused", "chunked", "plain", True): Shares(0.04, 0.04, 0.04),
    Kind("fused", "chunked", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("fused", "liger", "plain", True): Shares(0.0, 0.0, 0.0),
    Kind("fused", "liger", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("fused", "fused", "plain", True): Shares(0.0, 0.0, 0.0),
    Kind("fused", "fused", "none", True): Shares(0.0, 0.0, 0.0),
    Kind("unsloth", "chunked", "unsloth", False): Shares(0.29, 0.59, 1.24),
    Kind("unsloth", "chunked", "plain", False): Shares(0.16, 0.36, 0.5),
    Kind("unsloth", "chunked", "none", False): Shares(0.02, 0.93, 1.41),
    Kind("unsloth", "in-place", "unsloth", False): Shares(0.18, 1.12, 1.69),
    Kind("unsloth", "in-place", "plain", False): Shares(0.15, 0.84, 1.35),
    Kind("unsloth", "in-place", "none", False): Shares(0.02, 0.55, 0.78),
    Kind("plain", "chunked", "plain", False): Shares(0.12, 0.53, 0.95),
    Kind("plain", "chunked", "none", False): Shares(0.01, 1.09, 1.57),
    Kind("plain", "in-place", "plain", False): Shares(0.16, 0.83, 1.34),
    Kind("plain", "in-place", "none", False): Shares(0.0, 0.8, 1.11),
    Kind("plain", "shifted", "plain", False): Shares(0.08, 1.39, 1.94),
    Kind("plain", "shifted", "none", False): Shares(0.0, 0.56, 0.8),
    Kind("plain", "held", "plain", False): Shares(0.08, 1.39, 1.94),
    Kind("plain", "held", "none", False): Shares(0.0, 0.56, 0.8),
    Kind("plain", "divided", "plain", False): Shares(0.23, 1.74, 2.37),
    Kind("plain", "divided", "none", False): Shares(0.04, 0.61, 0.87),
    Kind("plain", "selective", "plain", False): Shares(0.18, 1.78, 2.4),
    Kind("plain", "selective", "none", False): Shares(0.04, 0.57, 0.83),
    Kind("plain", "liger", "plain", False): Shares(0.24, 0.41, 0.79),
    Kind("plain", "liger", "none", False): Shares(0.0, 0.92, 1.32),
    Kind("plain", "full", "plain", False): Shares(0.23, 1.74, 2.37),
    Kind("plain", "full", "none", False): Shares(0.04, 0.61, 0.87),
    Kind("fused", "chunked", "plain", False): Shares(0.11, 0.57, 1.01),
    Kind("fused", "chunked", "none", False): Shares(0.01, 1.38, 1.89),
    Kind("fused", "liger", "plain", False): Shares(0.25, 0.44, 0.83),
    Kind("fused", "liger", "none", False): Shares(0.01, 1.18, 1.58),
    Kind("fused", "fused", "plain", False): Shares(0.14, 0.86, 1.2),
    Kind("fused", "fused", "none", False): Shares(0.02, 0.92, 1.19),
    Kind("plain", "chunked", "plain", True, True): Shares(0.14, 0.14, 0.14),
    Kind("plain", "chunked", "none", True, True): Shares(0.01, 0.01, 0.01),
    Kind("plain", "full", "plain", True, True): Shares(0.15, 0.15, 0.15),
    Kind("plain", "full", "none", True, True): Shares(0.02, 0.02, 0.02),
    Kind("plain", "chunked", "plain", False, True): Shares(0.3, 1.17, 1.36),
    Kind("plain", "chunked", "none", False, True): Shares(0.03, 0.89, 0.92),
    Kind("plain", "full", "plain", False, True): Shares(0.29, 1.74, 2.41),
    Kind("plain", "full", "none", False, True): Shares(0.03, 0.54, 0.62),
    # end
}
"""What `python scripts/simulate_pool.py` prints; tests derive entries again."""
CACHE_SHARE, CACHE_SHARE_MOST = 1.62, 2.49
"""The pool after a rollout of transformers' `generate` without growing segments, over the cache at its full length:
median and most of simulated rollouts (`generate_pool`; printed by the same script)."""
_FIXED_UPPER = 0.35
"""The most that measured runs of one length and without growing segments held, whole logits excepted
(foundation-model-stack's fms-acceleration, A100)."""
_GROWING_UPPER = 0.10
"""With growing segments: what is assumed at most; simulated steps stay below it."""


def share(workload: Workload, *, learning: bool) -> tuple[float, float]:
    """Returns what the pool holds beyond the tensors, expected and upper, as a share of what comes and goes.

    Rollouts ask for blocks of one size: a cache is as long as the longest row.
    """
    found, varies = TABLE[_kind(workload)], learning and workload.lengths_vary
    expected = max(found.one_length, found.varying) if varies else found.one_length
    least = _GROWING_UPPER if workload.expandable_segments else _FIXED_UPPER
    return expected, max(found.varying_most if varies else expected, least)


def _kind(workload: Workload) -> Kind:
    """Returns the nearest kind in the table: whole logits count as the layer's usual ones, written in place or not."""
    is_eager = workload.attention == "eager" and workload.layer == "plain"
    known = (_CHUNKED, *((_EAGER_WHOLE,) if is_eager else _WHOLE[workload.layer]))
    logits = workload.logits if workload.logits in known else known[-1]
    offloads = workload.checkpointing == "unsloth" and workload.layer != "unsloth"
    checkpointing: Checkpointing = "plain" if offloads else workload.checkpointing
    return Kind(workload.layer, logits, checkpointing, workload.expandable_segments, is_eager)
