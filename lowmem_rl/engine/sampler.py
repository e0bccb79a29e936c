"""Samples a run's completions with the policy's present weights, and watches that they are still the policy's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lowmem_rl.config import RunConfig
from lowmem_rl.engine.choice import Choice, build, choose, gap_of, max_gap
from lowmem_rl.engine.decoder import Decoder
from lowmem_rl.engine.generate import Completion, answer, completion_of
from lowmem_rl.engine.out_of_memory import OutOfMemory, RowLimit, tried
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
    the training weights give them. A limit lets work whose memory runs out be tried again with fewer rows.
    """

    rollout_limit: RowLimit | None = None
    answer_limit: RowLimit | None = None

    def __init__(self, policy: Policy, config: RunConfig, tell: Callable[[str], None] = lambda text: None) -> None:
        self.policy, self.config, self.tell = policy, config, tell
        self.choice: Choice = choose(policy, config)
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
        sampled = self._sample_within(self.rollout_limit, prompts, names, picking, limits)
        self.gap = self._gap(prompts, sampled, picking)
        if self.gap is not None and not self.gap <= max_gap(self.policy):  # NaN too
            self._fall_back(f"log-probs lie {self.gap:.2g} nats from the training weights'")
        return sampled

    def sample(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], picking: Picking, limits: Limits
    ) -> list[Sampled]:
        """Samples one completion a prompt."""
        decoder = self._decoder()
        with self.policy.without_dropout():  # the model's own modules would drop out in training mode
            return sample(decoder, prompts, names, picking, limits)

    def _sample_within(
        self,
        limit: RowLimit | None,
        prompts: Sequence[Sequence[int]],
        names: Sequence[str],
        picking: Picking,
        limits: Limits,
    ) -> list[Sampled]:
        """Samples in as many waves as memory allows: the same completions, to rounding."""
        if limit is None:
            return self.sample(prompts, names, picking, limits)
        rows = min(limits.rows, len(prompts))
        return limit.run(lambda rows: self.sample(prompts, names, picking, replace(limits, rows=rows)), rows)

    def _decoder(self) -> Decoder:
        """Returns the decoder; where there is no memory for a copy of the weights, from now on over the model's own."""
        if self.choice.weights == "merged" and self.rollout_limit is not None:
            found = tried(lambda: build(self.policy, self.config, "merged"))
            if not isinstance(found, OutOfMemory):
                return found
            self._fall_back("no memory for a copy of them")
        return build(self.policy, self.config, self.choice.weights)

    def _gap(self, prompts: Sequence[Sequence[int]], sampled: Sequence[Sampled], picking: Picking) -> float | None:
        """Returns the mean difference of some rows, None where memory does not allow the look."""
        rows, theirs = prompts[:CHECKED_ROWS], sampled[:CHECKED_ROWS]
        if self.rollout_limit is None:
            return gap_of(self.policy, rows, theirs, picking.temperature)
        found = tried(lambda: gap_of(self.policy, rows, theirs, picking.temperature))
        return None if isinstance(found, OutOfMemory) else found

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
            limits = Limits(self.stop_ids, max_tokens, batch)
            for row in self._sample_within(self.answer_limit, ids, names, picking, limits):
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
