"""`trainable.select`: what it chooses from, what it plans with before it has chosen, and what it has chosen.

A run whose layers are selected is the run of these layers, to the digit: its configuration becomes the one in which
`trainable.layers` names them. Resumed, it reads them from trainable.jsonl and scores nothing again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowmem_rl.config.layer_choice import layers_of, text_of
from lowmem_rl.config.rules import BY_GRADIENT
from lowmem_rl.config.run_config import AdapterConfig, RunConfig, TrainableConfig
from lowmem_rl.errors import ConfigError

if TYPE_CHECKING:
    from lowmem_rl.storage.run_dir import Row

PROBE_RANK = 16
"""Of the adapter whose gradients are scored. The estimate of a matrix's gradient norm has a relative error of at most
1 / sqrt(2 rank) = 0.18 (`engine.layer_probe`), that of a layer, which has several matrices, less."""

_KEPT_STATES = ("off", "host", "card")
_BAR = 30
"""Characters of the longest bar."""


@dataclass(frozen=True, slots=True)
class LayerSelection:
    """The layers that learn, ascending, and the scores of all candidates."""

    by: str
    scores: Mapping[int, float]
    layers: tuple[int, ...]
    rounds: int = 0
    """Rounds of sampling that had a gradient."""
    kept_states: str | None = None
    """`memory.kept_states` for these layers if the planner chooses it: before, it had chosen for the worst case."""

    def __str__(self) -> str:
        """The layers that learn, then the score of each candidate with a bar."""
        rounds = f" in {self.rounds} round{'' if self.rounds == 1 else 's'}" if self.rounds else ""
        highest, digits = max(self.scores.values()), len(str(max(self.scores)))
        lines = [f"layers that learn, by {self.by}{rounds}: {text_of(self.layers)}"]
        for layer, score in sorted(self.scores.items()):
            bar = "\N{FULL BLOCK}" * round(_BAR * score / highest if highest > 0 else 0)
            learns = "learns" if layer in self.layers else ""
            lines.append(f"  layer {layer:>{digits}}  {score:<10.4g}  {bar:<{_BAR}}  {learns}".rstrip())
        return "\n".join(lines)

    def to_row(self) -> "Row":
        """Returns the first row of trainable.jsonl."""
        scores = {str(layer): score for layer, score in self.scores.items()}
        found: Row = {"step": 0, "select": self.by, "scores": scores, "layers": list(self.layers)}
        found |= {"kept_states": self.kept_states} if self.kept_states else {}
        return found | ({"rounds": self.rounds} if self.by in BY_GRADIENT else {})

    @classmethod
    def from_row(cls, row: "Row") -> "LayerSelection":
        """Returns what a row holds. Raises `ValueError` if it is no selection, whatever else is in it."""
        from lowmem_rl.storage.run_reader import is_number

        by, layers, scores, rounds = row.get("select"), row.get("layers"), row.get("scores"), row.get("rounds", 0)
        if not (isinstance(by, str) and isinstance(layers, list) and isinstance(scores, dict) and scores):
            raise ValueError("no selection")
        numbers = {int(key): value for key, value in scores.items() if is_number(value)}
        if len(numbers) != len(scores) or type(rounds) is not int or any(type(layer) is not int for layer in layers):
            raise ValueError("a score or a layer is no number")
        if not layers or layers != sorted(set(layers)) or not numbers.keys() >= set(layers):
            raise ValueError("layers without scores")
        if (kept := row.get("kept_states")) not in (None, *_KEPT_STATES):
            raise ValueError("no place for states")
        return cls(by, numbers, tuple(layers), rounds, kept)

    def fits(self, trainable: TrainableConfig, depth: int) -> bool:
        """Returns whether it is one of a run with these settings."""
        candidates = set(layers_of(trainable.layers, depth))
        same = (self.by, len(self.layers)) == (trainable.select, trainable.select_top)
        return same and self.scores.keys() == candidates


def candidates_of(config: RunConfig, depth: int) -> tuple[int, ...]:
    """Returns the layers that the selection chooses from. Raises `ConfigError` if they are too few."""
    trainable = config.trainable
    layers = layers_of(trainable.layers, depth)
    if trainable.select_top > len(layers):
        what = f"trainable.select_top = {trainable.select_top}, but trainable.layers = {trainable.layers!r}"
        raise ConfigError(f"{what} chooses from {len(layers)} layers.", hint=f"Set it to at most {len(layers)}.")
    return layers


def with_layers(config: RunConfig, layers: str) -> RunConfig:
    """Returns the configuration of a run in which `layers` are named, not selected."""
    named = {"layers": layers, **TrainableConfig().model_dump(include={"select", "select_top", "select_rounds"})}
    return config.model_copy(update={"trainable": config.trainable.model_copy(update=named)})


def worst_case(config: RunConfig, depth: int) -> RunConfig:
    """Returns the run if the selection chooses the layers that cost most: the backward pass goes through all above.

    Any other run comes back as it is. Raises `ConfigError` if there are too few layers to choose from.
    """
    if config.trainable.select == "none":
        return config
    return with_layers(config, text_of(candidates_of(config, depth)[: config.trainable.select_top]))


def probe_config(config: RunConfig) -> RunConfig:
    """Returns the run that the selection looks at: an adapter in all candidates, a rollout a step.

    The run's own prompts, lengths, rewards and loss. A KL penalty is left out: the policy is the base model, at which
    its gradient is 0.
    """
    trainable = config.trainable
    matrices = tuple(name for name in trainable.modules if not name.endswith("norm"))
    targets = config.adapter.targets if trainable.method == "lora" else matrices or AdapterConfig().targets
    grpo = {"steps": trainable.select_rounds, "steps_per_rollout": 1, "passes_per_rollout": 1, "beta": 0.0}
    sections = {
        "trainable": TrainableConfig(layers=trainable.layers),
        "adapter": AdapterConfig(rank=PROBE_RANK, alpha=PROBE_RANK, targets=targets),
        "grpo": config.grpo.model_copy(update=grpo),
    }
    return config.model_copy(update=sections)
