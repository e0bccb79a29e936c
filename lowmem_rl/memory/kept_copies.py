"""Expanded copies of layers that a run may keep from one rollout to the next, if all its phases have room."""

from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.terms import Term, term
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape

_JOINED = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""Matrices that read the same input: they are copied together (`engine.decoder_weights`)."""


def kept_share(config: RunConfig, shape: ModelShape, card: Card | None) -> float:
    """Returns the share of the linear layers' numbers that is kept: on a CPU all, for the memory of the next copy."""
    return 1.0 if card is None else frozen_share(config, shape)


def frozen_share(config: RunConfig, shape: ModelShape) -> float:
    """Returns the share of the linear layers' numbers whose copy is the same in each rollout."""
    trainable, sizes = config.trainable, shape.linear_sizes
    learning = config.adapter.targets if trainable.method == "lora" else trainable.modules or tuple(sizes)
    frozen = [name for joined in _JOINED if not set(joined) & set(learning) for name in joined]
    inside = sum(sizes[name][0] * sizes[name][1] for name in frozen) / shape.layer_params
    share = len(layers_of(trainable.layers, shape.num_layers)) / shape.num_layers
    return 1.0 - share * (1.0 - inside)


def kept_copies(workload: Workload, shape: ModelShape) -> Term:
    """What is kept in phases that do not sample; the others count it as a part of the merged copy."""
    size = workload.kept_share * shape.linear_params * workload.compute_bytes
    which, share = ("all", "") if workload.kept_share == 1.0 else ("frozen", "frozen share x ")
    return term(f"kept copies of {which} layers", size, "read from source", f"{share}L (2Hq + 2Hk + 3HI) b")
