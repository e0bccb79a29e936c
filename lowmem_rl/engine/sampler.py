"""Samples a run's completions with the policy's present weights, and watches that they are still the policy's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.backend import SamplingBackend, build, choose, logprob_gap, max_gap
from lowmem_rl.engine.continuous_batching import SampledCompletion, StoppingCriteria, iter_completions, sample
from lowmem_rl.engine.decoder import Decoder
from lowmem_rl.engine.decoder_weights import UnsupportedModel
from lowmem_rl.engine.hf_generate import Completion, answer, completion_of
from lowmem_rl.engine.oom import OutOfMemory, RowLimit, catch_oom
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.sampling import SamplingParams, own_random_numbers, stream_names
from lowmem_rl.example import Message

CHECKED_ROWS = 2
"""Completions of each rollout whose log-probabilities are computed again with the training weights."""
ROWS_TOGETHER = 4096
"""Prompts whose ids and random numbers stand in memory at once: 100 MB at 1,000 tokens each."""


class Sampler:
    """Our engine over a policy, as chosen for this model and machine.

    `gap` is the mean difference, in nats a token, between what the last rollout's tokens were sampled with and what
    the training weights give them; `is_off` says that rounding does not explain it. A limit lets work whose memory
    runs out be tried again with fewer rows.
    """

    rollout_limit: RowLimit | None = None
    answer_limit: RowLimit | None = None

    def __init__(
        self,
        policy: Policy,
        config: RunConfig,
        tell: Callable[[str], None] = lambda text: None,
        choice: SamplingBackend | None = None,
    ) -> None:
        """Takes a `choice` that was made before, in a run that goes on."""
        self.policy, self.config, self.tell = policy, config, tell
        self.choice: SamplingBackend = choice or choose(policy, config)
        self.stop_ids = policy.stop_ids
        self.gap: float | None = None
        self.is_off = False

    @property
    def is_ours(self) -> bool:
        """True if our engine samples; else the caller lets `generate` or vLLM do it."""
        return self.choice.engine == "lowmem"

    def rollout(self, prompts: Sequence[Sequence[int]], names: Sequence[str]) -> list[SampledCompletion]:
        """Samples one completion a prompt as the config says; `names` seed the rows' random streams.

        Where the log-probabilities are further from the training weights' than rounding explains, the next rollouts
        fall back: first to the model's own weights, then to `generate`.
        """
        params = SamplingParams.of(self.config.rollout)
        limits = StoppingCriteria(
            self.stop_ids,
            self.config.grpo.max_completion_tokens,
            self.config.rollout_rows,
            stops_loops=self.config.rollout.stop_loops,
        )
        sampled = self._sample_within(self.rollout_limit, prompts, names, params, limits)
        self.gap = self._gap(prompts, sampled, params)
        self.is_off = self.gap is not None and not self.gap <= max_gap(self.policy)  # NaN too
        if self.is_off:
            self._fall_back(f"log-probs lie {self.gap:.2g} nats from the training weights'")
        return sampled

    def sample(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], params: SamplingParams, limits: StoppingCriteria
    ) -> list[SampledCompletion]:
        """Samples one completion a prompt. Raises `UnsupportedModel` for rows longer than its attention reaches."""
        decoder = self._decoder(max(map(len, prompts)) + limits.max_tokens)
        with self.policy.without_dropout():  # the model's own modules would drop out in training mode
            return sample(decoder, prompts, names, params, limits)

    def _sample_within(
        self,
        limit: RowLimit | None,
        prompts: Sequence[Sequence[int]],
        names: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
    ) -> list[SampledCompletion]:
        """Samples in as many waves as memory allows: the same completions, to rounding."""
        if limit is None:
            return self.sample(prompts, names, params, limits)
        rows = min(limits.rows, len(prompts))
        return limit.run(lambda rows: self.sample(prompts, names, params, replace(limits, rows=rows)), rows)

    def _decoder(self, places: int) -> Decoder:
        """Returns the decoder; where there is no memory for a copy of the weights, from now on over the model's own."""
        if self.choice.weights == "merged" and self.rollout_limit is not None:
            found = catch_oom(lambda: build(self.policy, "merged", places))
            if not isinstance(found, OutOfMemory):
                return found
            self._fall_back("no memory for a copy of them")
        return build(self.policy, self.choice.weights, places)

    def _gap(
        self, prompts: Sequence[Sequence[int]], sampled: Sequence[SampledCompletion], params: SamplingParams
    ) -> float | None:
        """Returns the mean difference of some rows, None where memory does not allow the look."""
        rows, theirs = prompts[:CHECKED_ROWS], sampled[:CHECKED_ROWS]
        if self.rollout_limit is None:
            return logprob_gap(self.policy, rows, theirs, params.temperature)
        found = catch_oom(lambda: logprob_gap(self.policy, rows, theirs, params.temperature))
        return None if isinstance(found, OutOfMemory) else found

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        params: SamplingParams,
        *,
        max_tokens: int,
        batch: int,
        names: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """Yields each prompt's number and completion as they end, `batch` at work at once.

        `names` seed the random streams of rows that are not picked greedily. With our engine a prompt takes the place
        of a row that has finished; where a prompt is too long for it, `generate` answers.
        """
        names = stream_names("answers", len(prompts)) if names is None else names
        left = list(range(len(prompts)))
        while left:
            rows = min(batch, self.answer_limit.rows or batch) if self.answer_limit else batch
            some = left[:ROWS_TOGETHER]
            chosen, own = [prompts[i] for i in some], [names[i] for i in some]
            answered = self._answered(chosen, own, params, StoppingCriteria(self.stop_ids, max_tokens, rows))
            done = set()
            for place, completion in self._while_memory_lasts(answered, rows):
                done.add(some[place])
                yield some[place], completion
            left = [i for i in left if i not in done]

    def _while_memory_lasts(
        self, answered: Iterator[tuple[int, Completion]], rows: int
    ) -> Iterator[tuple[int, Completion]]:
        """Yields what is answered; where memory runs out it ends, and fewer rows stand together from then on."""
        if self.answer_limit is None:
            yield from answered
            return
        while (found := catch_oom(lambda: next(answered, None))) is not None:
            if isinstance(found, OutOfMemory):
                self.answer_limit.rows = self.answer_limit.shrink(rows, found.why)
                return
            yield found

    def _answered(
        self,
        prompts: Sequence[Sequence[Message]],
        names: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
    ) -> Iterator[tuple[int, Completion]]:
        try:
            return self._ours(prompts, names, params, limits)
        except UnsupportedModel:
            return enumerate(self._generated(prompts, names, params, limits))

    def _ours(
        self,
        prompts: Sequence[Sequence[Message]],
        names: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
    ) -> Iterator[tuple[int, Completion]]:
        """Raises `UnsupportedModel` at once for rows that it cannot read, and if another engine has been chosen."""
        if not self.is_ours:
            raise UnsupportedModel(self.choice.reason)
        ids = [self.policy.tokenize(prompt) for prompt in prompts]
        decoder = self._decoder(max(map(len, ids)) + limits.max_tokens)
        return self._as_they_end(decoder, ids, names, params, limits)

    def _as_they_end(
        self,
        decoder: Decoder,
        ids: Sequence[Sequence[int]],
        names: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
    ) -> Iterator[tuple[int, Completion]]:
        with self.policy.without_dropout():
            for row, found in iter_completions(decoder, ids, names, params, limits):
                yield row, completion_of(self.policy, found.ids)

    def _generated(
        self,
        prompts: Sequence[Sequence[Message]],
        names: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
    ) -> Iterator[Completion]:
        """Answers batch by batch; each seeded by its first name, with no effect on what training draws."""
        for start in range(0, len(prompts), limits.rows):
            chosen = prompts[start : start + limits.rows]
            with own_random_numbers(names[start]):
                found = list(answer(self.policy, chosen, params, max_tokens=limits.max_tokens, batch=limits.rows))
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
