"""Samples a run's completions with the policy's present weights, and checks that they are still the policy's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.backend import SamplingBackend, build, choose, logprob_gap, max_gap
from lowmem_rl.engine.continuous_batching import SampledCompletion, StoppingCriteria, iter_completions, sample
from lowmem_rl.engine.decoder import Decoder
from lowmem_rl.engine.decoder_weights import UnsupportedModel
from lowmem_rl.engine.hf_generate import Completion, answer, completion_of
from lowmem_rl.engine.kept_copies import KeptCopies
from lowmem_rl.engine.kept_states import StateRecorder, entering, max_error
from lowmem_rl.engine.oom import OutOfMemory, RowLimit, catch_oom
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.sampling import SamplingParams, own_random_numbers, stream_names
from lowmem_rl.example import Message

CHECKED_ROWS = 2
"""Completions of each rollout whose log-probabilities are computed again with the training weights."""
_PROMPTS_TOGETHER = 4096
"""Prompts whose ids and random numbers are in memory at once: 100 MB at 1,000 tokens each."""


class Sampler:
    """Our engine over a policy, as chosen for this model and machine; a limit retries with fewer rows after an OOM.

    `gap` is the mean difference, in nats a token, between the log-probs that the last rollout was sampled with and
    those under the training weights (None: not computed); `is_off` means that rounding does not explain it.
    """

    rollout_limit: RowLimit | None = None
    answer_limit: RowLimit | None = None
    kept: KeptCopies | None = None
    """Merged weights of layers, if a run has room for them between rollouts."""
    says_its_log_probs = True
    """False if those of a rollout are not the ones that it was sampled with: they are compared with nothing."""

    def __init__(
        self,
        policy: Policy,
        config: RunConfig,
        report: Callable[[str], None] = lambda text: None,
        backend: SamplingBackend | None = None,
    ) -> None:
        """A resumed run passes the `backend` that it began with."""
        self.policy, self.config, self.report = policy, config, report
        self.backend: SamplingBackend = backend or choose(policy, config)
        self.stop_ids = policy.stop_ids
        self.gap: float | None = None
        self.is_off = self.has_dropped_states = False

    @property
    def uses_lowmem_engine(self) -> bool:
        """True if our engine samples; else the caller samples with `generate` or vLLM."""
        return self.backend.engine == "lowmem"

    @property
    def is_compared_by_update(self) -> bool:
        """True if the update's own forward gives what a rollout without kept states is compared with.

        Not so with dropout, and not with Unsloth's kernels on a GPU, whose update shows no log-probabilities.
        """
        return self.config.adapter.dropout == 0.0 and self.says_its_log_probs and not self.policy.device.is_gpu

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        streams: Sequence[str],
        states: StateRecorder | None = None,
        *,
        compares: bool = True,
    ) -> list[SampledCompletion]:
        """Samples one completion a prompt as the config says; `streams` name the rows' random streams.

        `states` collects what enters its layer, unless it differs by more than rounding from what the training weights
        compute. Then `compare` runs, unless `compares` is off: the caller compares.
        """
        config, params = self.config, SamplingParams.of(self.config.rollout)
        rows = min(config.rollout_rows, len(prompts))

        def sample_waves(rows: int) -> list[SampledCompletion]:  # in any number of waves the same, to rounding
            limits = self.stopping_criteria(config.grpo.max_completion_tokens, rows)
            limits = replace(limits, stops_loops=config.rollout.stop_loops)
            return self.sample(prompts, streams, params, limits, states)

        sampled = self.rollout_limit.run(sample_waves, rows) if self.rollout_limit else sample_waves(rows)
        if compares:
            self.compare(prompts, sampled, states)
        return sampled

    def compare(
        self,
        prompts: Sequence[Sequence[int]],
        sampled: Sequence[SampledCompletion],
        states: StateRecorder | None = None,
    ) -> None:
        """Computes the log-probabilities of a few sampled rows with the training weights; then as `take_gap`."""
        checked = prompts[:CHECKED_ROWS], sampled[:CHECKED_ROWS]
        temperature = self.config.rollout.temperature
        if states is None:
            gap = self._gap(*checked, temperature)
        else:
            with entering(self.policy.model, states.layer) as seen:
                gap = self.gap = self._gap(*checked, temperature)
            self._check_states(states, *checked, seen)
        self.take_gap(gap)

    def take_gap(self, gap: float | None) -> None:
        """Takes the gap of the last rollout, None if there was no memory to compute it.

        If it is more than rounding explains, the next rollouts fall back: first to the model's own weights, then to
        `generate`.
        """
        self.gap, self.is_off = gap, gap is not None and not gap <= max_gap(self.policy)  # NaN too
        if self.is_off:
            self._fall_back(f"log-probs differ by {gap:.2g} nats from the training weights'")

    def _check_states(
        self,
        states: StateRecorder,
        prompts: Sequence[Sequence[int]],
        sampled: Sequence[SampledCompletion],
        seen: Sequence[Tensor],
    ) -> None:
        """Compares kept states with those that have entered the layer in the forward over the checked rows.

        They are dropped if rounding does not explain the difference, or if memory was too short to compare.
        """
        if self.gap is None or states.kept is None:
            states.kept = None
            return
        lengths = [(len(prompt), len(row.ids)) for prompt, row in zip(prompts, sampled, strict=True)]
        states.error = max(states.kept.error(i, seen[-1][i], *length) for i, length in enumerate(lengths))
        limit = max_error(states.layer, seen[-1].shape[-1], seen[-1].dtype)
        if states.error <= limit:  # not so for NaN
            return
        states.kept = None
        if not self.has_dropped_states:
            self.has_dropped_states = True
            what = f"differ by {states.error:.2g} from the training weights', and rounding explains {limit:.2g}"
            self.report(f"states kept while sampling {what}: such an update computes all layers again")

    def stopping_criteria(self, max_tokens: int, rows: int) -> StoppingCriteria:
        """Returns what ends a completion."""
        return StoppingCriteria(self.stop_ids, max_tokens, rows)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        streams: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
        states: StateRecorder | None = None,
    ) -> list[SampledCompletion]:
        """Samples one completion a prompt. Raises `UnsupportedModel` for rows longer than its attention reaches."""
        decoder = self._decoder(max(map(len, prompts)) + limits.max_tokens)
        with self.policy.without_dropout():  # the model's own modules would drop out in training mode
            return sample(decoder, prompts, streams, params, limits, states=states)

    def _decoder(self, max_tokens: int) -> Decoder:
        """Returns the decoder; if memory is too short for merged weights, from now on over the model's own."""
        if self.backend.weights == "merged" and self.rollout_limit is not None:
            found = catch_oom(lambda: build(self.policy, "merged", max_tokens, self.kept))
            if not isinstance(found, OutOfMemory):
                return found
            self._fall_back("no memory for a copy of them")
        return build(self.policy, self.backend.weights, max_tokens, self.kept)

    def drop_copies(self) -> None:
        """Frees kept weights and keeps none from now on."""
        self.kept = None

    def _gap(
        self, prompts: Sequence[Sequence[int]], sampled: Sequence[SampledCompletion], temperature: float
    ) -> float | None:
        """Returns the gap of these rows, None if memory is too short to compute it."""
        if self.rollout_limit is None:
            return logprob_gap(self.policy, prompts, sampled, temperature)
        found = catch_oom(lambda: logprob_gap(self.policy, prompts, sampled, temperature))
        return None if isinstance(found, OutOfMemory) else found

    def _fall_back(self, why: str) -> None:
        self.drop_copies()
        reason = f"fell back from {self.backend.weights} weights: {why}"
        if self.backend.weights == "merged":
            self.backend = replace(self.backend, weights="quantized", reason=reason)
        else:
            self.backend = replace(self.backend, engine="generate", weights=None, reason=reason)
        self.report(f"sampling {reason}")

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        params: SamplingParams,
        *,
        max_tokens: int,
        batch: int,
        streams: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """Yields each prompt's number and completion as they end, `batch` of them at once.

        `streams` name the rows' random streams, which greedy sampling does not read. If memory runs out, the
        rest is answered with fewer rows together.
        """
        streams = stream_names("answers", len(prompts)) if streams is None else streams
        left, limit = list(range(len(prompts))), self.answer_limit
        while left:
            rows = min(batch, limit.rows or batch) if limit else batch
            some, done = left[:_PROMPTS_TOGETHER], set[int]()
            criteria = self.stopping_criteria(max_tokens, rows)
            answered = self._answered([prompts[i] for i in some], [streams[i] for i in some], params, criteria)
            for place, completion in _until_oom(answered, limit, rows) if limit else answered:
                done.add(some[place])
                yield some[place], completion
            left = [i for i in left if i not in done]

    def _answered(
        self,
        prompts: Sequence[Sequence[Message]],
        streams: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
    ) -> Iterator[tuple[int, Completion]]:
        """Yields completions of our engine; of `generate` if that is chosen, or if a prompt is too long for ours.

        `generate` answers batch by batch, each seeded by its first stream, and changes no random state of training.
        """
        if self.uses_lowmem_engine:
            ids = [self.policy.tokenize(prompt) for prompt in prompts]
            with suppress(UnsupportedModel):
                decoder = self._decoder(max(map(len, ids)) + limits.max_tokens)
                with self.policy.without_dropout():
                    for row, found in iter_completions(decoder, ids, streams, params, limits):
                        yield row, completion_of(self.policy, found.ids)
                return
        for start in range(0, len(prompts), limits.rows):
            some = prompts[start : start + limits.rows]
            with own_random_numbers(streams[start]):
                completions = list(answer(self.policy, some, params, max_tokens=limits.max_tokens, batch=limits.rows))
            yield from enumerate(completions, start)


def _until_oom(
    answered: Iterator[tuple[int, Completion]], limit: RowLimit, rows: int
) -> Iterator[tuple[int, Completion]]:
    """Yields what is answered until memory runs out; then the limit lets fewer rows be together."""
    while (found := catch_oom(lambda: next(answered, None))) is not None:
        if isinstance(found, OutOfMemory):
            limit.rows = limit.shrink(rows, found.why)
            return
        yield found
