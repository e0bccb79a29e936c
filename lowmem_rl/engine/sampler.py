"""Samples a run's completions with the policy's present weights, and watches that they are still the policy's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lowmem_rl.config import RunConfig
from lowmem_rl.engine.choice import Choice, build, choose, gap_of, max_gap
from lowmem_rl.engine.decoder import Decoder
from lowmem_rl.engine.generate import Completion, answer, completion_of
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.rollout import Limits, Sampled, sample, sampled_as_they_end
from lowmem_rl.engine.sampling import Picking, names_of, own_random_numbers
from lowmem_rl.engine.weights import UnknownModel
from lowmem_rl.example import Message

CHECKED_ROWS = 2
"""Completions of each rollout whose log-probabilities are computed again with the training weights."""
ROWS_TOGETHER = 4096
"""Prompts whose ids and random numbers stand in memory at once: 100 MB at 1,000 tokens each."""


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
        """Samples one completion a prompt. Raises `UnknownModel` for rows longer than its attention reaches."""
        decoder = build(self.policy, self.choice.weights, max(map(len, prompts)) + limits.max_tokens)
        with self.policy.without_dropout():  # the model's own modules would drop out in training mode
            return sample(decoder, prompts, names, picking, limits)

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        picking: Picking,
        *,
        max_tokens: int,
        batch: int,
        names: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """Yields each prompt's number and completion as they end, `batch` at work at once.

        `names` seed the random streams of rows that are not picked greedily. With our engine a prompt takes the place
        of a row that has finished; where a prompt is too long for it, `generate` answers.
        """
        names = names_of("answers", len(prompts)) if names is None else names
        for start in range(0, len(prompts), ROWS_TOGETHER):
            chosen, own = prompts[start : start + ROWS_TOGETHER], names[start : start + ROWS_TOGETHER]
            try:
                found = self._ours(chosen, own, picking, Limits(self.stop_ids, max_tokens, batch))
            except UnknownModel:
                found = enumerate(self._generated(chosen, own, picking, max_tokens, batch))
            for row, completion in found:
                yield start + row, completion

    def _ours(
        self, prompts: Sequence[Sequence[Message]], names: Sequence[str], picking: Picking, limits: Limits
    ) -> Iterator[tuple[int, Completion]]:
        """Raises `UnknownModel`, at once, for rows that it cannot read, and where another engine has been chosen."""
        if not self.is_ours:
            raise UnknownModel(self.choice.reason)
        ids = [self.policy.tokenize(prompt) for prompt in prompts]
        decoder = build(self.policy, self.choice.weights, max(map(len, ids)) + limits.max_tokens)
        return self._as_they_end(decoder, ids, names, picking, limits)

    def _as_they_end(
        self, decoder: Decoder, ids: Sequence[Sequence[int]], names: Sequence[str], picking: Picking, limits: Limits
    ) -> Iterator[tuple[int, Completion]]:
        with self.policy.without_dropout():
            for row, found in sampled_as_they_end(decoder, ids, names, picking, limits):
                yield row, completion_of(self.policy, found.ids)

    def _generated(
        self,
        prompts: Sequence[Sequence[Message]],
        names: Sequence[str],
        picking: Picking,
        max_tokens: int,
        batch: int,
    ) -> Iterator[Completion]:
        """Answers batch by batch; each seeded by its first name, with no effect on what training draws."""
        for start in range(0, len(prompts), batch):
            chosen = prompts[start : start + batch]
            with own_random_numbers(names[start]):
                found = list(answer(self.policy, chosen, picking, max_tokens=max_tokens, batch=batch))
            yield from found

    def _fall_back(self, why: str) -> None:
        merged = self.choice.weights == "merged"
        self.choice = replace(
            self.choice,
            engine="lowmem" if merged else "generate",
            weights="quantized" if merged else None,
            reason=f"fell back from {self.choice.weights} weights: {why}",
        )
        self.tell(f"sampling {self.choice.reason}")
