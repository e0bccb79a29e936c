"""Which weights of a shape learn under `[trainable]`, as counts: layers, the backward pass's depth, whole numbers."""

from dataclasses import dataclass

from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class TrainedSet:
    """What learns, and how deep the backward pass goes for it."""

    layers: int
    """Layers with weights that learn."""
    backward_layers: int
    """Layers from the lowest that learns to the top."""
    whole_params: int
    """Numbers that learn whole, outside of an adapter."""


def trained_set(config: RunConfig, shape: ModelShape) -> TrainedSet:
    """Returns the counts of a run. Raises `ConfigError` for layers that the model lacks."""
    trainable, depth = config.trainable, shape.num_layers
    layers = layers_of(trainable.layers, depth)
    reaches_bottom = {"embed_tokens", "norms"} & set(trainable.extra)
    backward = depth if reaches_bottom else depth - layers[0] if layers else 0
    return TrainedSet(len(layers), backward, _whole_params(trainable, len(layers), shape))


def _whole_params(trainable: TrainableConfig, layers: int, shape: ModelShape) -> int:
    if trainable.method == "lora":
        return 0
    sizes = {name: inputs * outputs for name, (inputs, outputs) in shape.linear_sizes.items()}
    each = sum(sizes.get(name, shape.hidden_size) for name in trainable.modules)
    in_layers = layers * (each or shape.layer_params + shape.layer_other_params)
    norms, embeddings = 2 * shape.num_layers + 1, shape.vocab_size * shape.hidden_size
    extra = {"embed_tokens": embeddings, "lm_head": embeddings, "norm": shape.hidden_size}
    extra["norms"] = (norms - (0 if trainable.modules else 2 * layers)) * shape.hidden_size
    return in_layers + sum(extra[name] for name in trainable.extra)
