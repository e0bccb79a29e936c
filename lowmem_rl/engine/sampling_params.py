"""How a token is chosen, as settings. They are separate from `sampling` because naming them needs no torch."""

from dataclasses import dataclass

from lowmem_rl.config.run_config import RolloutConfig


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a token is chosen: transformers' settings with transformers' meaning. `greedy` overrides the others."""

    greedy: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, rollout: RolloutConfig) -> "SamplingParams":
        """Returns what a run samples with."""
        return cls(False, rollout.temperature, rollout.top_p, rollout.top_k, rollout.min_p, rollout.repetition_penalty)


GREEDY = SamplingParams(greedy=True)
