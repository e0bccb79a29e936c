"""What PEFT's forward of DoRA holds in addition to LoRA's (peft 0.21 tuners/lora/dora.py).

Each adapted layer finds the norm of its weight's rows again: an identity (in, in) in float32 goes through both
matrices, and their product is scaled and added to the weight; autograd keeps the identity for as long. Counted under
fake tensors on Qwen2.5-7B, where the down projection has 18,944 inputs: 2.1 GiB for any number of tokens, in bfloat16
and in float32 (2 x86 cores, CPU, 2026-11-30).
"""

from lowmem_rl.memory import terms
from lowmem_rl.memory.terms import Term, term
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape


def norms(workload: Workload, shape: ModelShape) -> Term:
    """The adapted layer that needs most while its norm is found."""
    b, sizes = workload.compute_bytes, terms.adapted_sizes(workload, shape) if workload.use_dora else []
    identity = 4 + (b if b < 4 else 0)  # autocast narrows it
    made = max((identity * inputs**2 + b * inputs * outputs for inputs, outputs in sizes), default=0)
    added = max((b * inputs**2 + 3 * b * inputs * outputs for inputs, outputs in sizes), default=0)
    expanded = max((b * inputs * outputs for inputs, outputs in sizes), default=0)
    size, formula = max(made, added), "in^2 (4 + b) + b in out, or b in^2 + 3 b in out"
    return term("norms of DoRA", size, "measured here", formula, upper=size + 2 * expanded)


def saved(workload: Workload, shape: ModelShape) -> int:
    """Returns the bytes a token that a layer keeps for the gradient of its magnitudes: both outputs they multiply.

    Over 4-bit weights the sum of both is in float32 under CUDA's autocast, and what reads it keeps it so.
    """
    if not workload.use_dora:
        return 0
    b, outputs = workload.compute_bytes, sum(size[1] for size in terms.adapted_sizes(workload, shape))
    return (2 * b + (4 - b if workload.method == "qlora" else 0)) * outputs
