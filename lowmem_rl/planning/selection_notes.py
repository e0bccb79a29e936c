"""What `trainable.select` will do, in words, before a run."""

from collections.abc import Iterator

from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.config.rules import BY_GRADIENT
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.trainable.selection import PROBE_RANK, candidates_of


def selection_notes(config: RunConfig, shape: ModelShape) -> Iterator[str]:
    """Yields a sentence if layers are selected. Raises `ConfigError` if there are too few to choose from."""
    trainable = config.trainable
    if trainable.select == "none":
        return
    candidates = candidates_of(config, shape.num_layers)
    chosen = f"{trainable.select_top} of the layers {text_of(candidates)}"
    how = "from the weights alone"
    if trainable.select in BY_GRADIENT:
        how = f"in {trainable.select_rounds} rounds of sampling, with an adapter of rank {PROBE_RANK} in all of them"
    again = ", until memory.kept_states is chosen again" if config.memory.kept_states == "auto" else ""
    yield (
        f"{chosen} are selected by {trainable.select} before the first step, {how}; memory and time are those of the "
        f"lowest, from {candidates[0]} up{again}"
    )
