"""Samples a run's completions with the policy's present weights, and watches that they are still the policy's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lowmem_rl.config import RunConfig
from lowmem_rl.engine.choice import Choice, build, choose, gap_of, max_gap
from lowmem_rl.engine.generate import Completion, answer, completion_of
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.rollout import Limits, Sampled, sample
from lowmem_rl.engine.sampling import Picking, names_of
from lowmem_rl.example import Message

CHECKED_ROWS = 2
"""Completions of each rollout whose log-probabilities are computed again with the training weights."""
BATCHES_TOGETHER = 4
"""Batches of an evaluation that are sampled as one: more keep slots full, fewer show progress sooner."""


class Sampler:
    """Our engine over a policy, as chosen for this model and machine.

    `gap` is the mean difference, in nats a token, between what the last rollout's tokens were sampled with and what
    the training weights give them.
    """

    def __init__(
        self,
        policy: Policy,
        config: RunConfig,
        tell: Callable[[str], None] = lambda text: None,
        choice: Choice | None = None,
    ) -> None:
        """Takes a `choice` that was made before, in a run that goes on."""
        self.policy, self.config, self.tell = policy, config, tell
        self.choice: Choice = choice or choose(policy, config)
        self.stop_ids = policy.stop_ids
        self.gap: float | None = None

    @property
    def is_ours(self) -> bool:
        """True if our engine samples; else the caller lets `generate` or vLLM do it."""
        return self.choice.engine == "lowmem"

    def rollout(self, prompts: Sequence[Sequence[int]], names: Sequence[str]) -> list[Sampled]:
        """Samples one completion a prompt as the config says; `names` seed the rows' random streams.

        Where the log-probabilities are further from the training weights' than rounding explains, the next rollouts
        fall back: first to the model's own weights, then to `generate`.
        """
        picking = Picking.of(self.config.rollout)
        limits = Limits(
            self.stop_ids,
            self.config.grpo.max_completion_tokens,
            self.config.rollout_rows,
            stops_loops=self.config.rollout.stop_loops,
        )
        sampled = self.sample(prompts, names, picking, limits)
        self.gap = gap_of(self.policy, prompts[:CHECKED_ROWS], sampled[:CHECKED_ROWS], picking.temperature)
        if not self.gap <= max_gap(self.policy):  # NaN too
            self._fall_back(f"log-probs lie {self.gap:.2g} nats from the training weights'")
        return sampled

    def sample(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], picking: Picking, limits: Limits
    ) -> list[Sampled]:
        """Samples one completion a prompt."""
        decoder = build(self.policy, self.config, self.choice.weights)
        with self.policy.without_dropout():  # the model's own modules would drop out in training mode
            return sample(decoder, prompts, names, picking, limits)

    def answers(
        self, prompts: Sequence[Sequence[Message]], picking: Picking, *, max_tokens: int, batch: int, stream: str = ""
    ) -> Iterator[Completion]:
        """Yields one completion a prompt, in order, `batch` at once; `stream` names the random numbers.

        Our engine gets several batches together: a prompt takes the place of a row that has finished.
        """
        if not self.is_ours:
            yield from answer(self.policy, prompts, picking, max_tokens=max_tokens, batch=batch)
            return
        for start in range(0, len(prompts), BATCHES_TOGETHER * batch):
            ids = [self.policy.tokenize(prompt) for prompt in prompts[start : start + BATCHES_TOGETHER * batch]]
            names = names_of(f"{stream}/{start}", len(ids))
            for row in self.sample(ids, names, picking, Limits(self.stop_ids, max_tokens, batch)):
                yield completion_of(self.policy, row.ids)

    def _fall_back(self, why: str) -> None:
        merged = self.choice.weights == "merged"
        self.choice = replace(
            self.choice,
            engine="lowmem" if merged else "generate",
            weights="quantized" if merged else None,
            reason=f"fell back from {self.choice.weights} weights: {why}",
        )
        self.tell(f"sampling {self.choice.reason}")
