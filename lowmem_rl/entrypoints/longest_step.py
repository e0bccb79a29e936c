"""A step as long as a run's longest, without work that only repeats an allocation.

Only the last tokens of each completion are sampled: our engine's cache has its full size from the first one on. Only
the two largest micro-batches are trained on. Rewards differ within each group, so that no row is dropped.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.continuous_batching import GPU_CHECK_EVERY, SampledCompletion, StoppingCriteria
from lowmem_rl.engine.kept_states import StateRecorder
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import SamplingParams
from lowmem_rl.example import Example
from lowmem_rl.grpo.batch import Batch
from lowmem_rl.grpo.micro_batches import MicroBatches
from lowmem_rl.grpo.train_dataset import to_dataset, tokens_of
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.training.step import Hooks
from lowmem_rl.trl_adapter.trainer import SampledBatch, TrainerSetup, make_trainer

LAST_TOKENS = GPU_CHECK_EVERY
"""Tokens that a row samples: as many as between two checks for finished rows, so that there is one check."""


class LastTokens(Sampler):
    """Samples the last tokens of each row; the ones before repeat the first of those, and no completion ends early.

    The cache, the mask and the keys that attention reads are those of full rows; the other tokens are not computed.
    """

    says_its_log_probs = False

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        streams: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
        states: StateRecorder | None = None,
    ) -> list[SampledCompletion]:
        """Returns one completion a prompt, of full length."""
        return [_filled(row, limits.skipped) for row in super().sample(prompts, streams, params, limits, states)]

    def stopping_criteria(self, max_tokens: int, rows: int) -> StoppingCriteria:
        """Returns the criteria of rows that begin shortly before their end."""
        criteria = super().stopping_criteria(max_tokens, rows)
        return replace(criteria, skipped=max(max_tokens - LAST_TOKENS, 0))

    def _gap(self, prompts: Sequence[Sequence[int]], sampled: Sequence[SampledCompletion], temperature: float) -> None:
        """Takes the memory of the comparison, whose result says nothing: tokens were left out."""
        super()._gap(prompts, sampled, temperature)

    def _check_states(self, *args: Any) -> None:
        """Keeps the states for the memory that they take."""


def _filled(row: SampledCompletion, skipped: int) -> SampledCompletion:
    """Replaces the skipped ids by a sampled one: their zeros may be the padding id, which would be cut off."""
    return SampledCompletion([row.ids[skipped]] * skipped + row.ids[skipped:], row.log_probs)


def sampler_up_to_the_limit(policy: Policy, config: RunConfig, kind: type[Sampler] = LastTokens) -> Sampler:
    """Returns a sampler whose completions never end early. `generate` needs one more copy of a token's logits for that.

    vLLM allocates its cache at once for any length: there the step is as long as the completions happen to be.
    """
    sampler = kind(policy, with_overrides(config, {"rollout.stop_loops": False}))
    sampler.stop_ids = frozenset()
    policy.model.generation_config.min_new_tokens = config.grpo.max_completion_tokens
    return sampler


class _OneWave:
    """A trainer that samples only the longest prompts: the cache of `generate` grows with each token."""

    def sample_through_trl(self, prompt_ids: list[list[int]], *args: Any) -> SampledBatch:
        """Samples one wave and repeats its completions for all rows."""
        sample = super().sample_through_trl  # type: ignore[misc]
        if self.use_vllm:  # type: ignore[attr-defined]  # vLLM plans its own waves
            return sample(prompt_ids, *args)
        longest_first = sorted(prompt_ids, key=len, reverse=True)
        wave: SampledBatch = sample(longest_first[: self.config.rollout_rows], *args)  # type: ignore[attr-defined]
        ids = [wave.completion_ids[number % len(wave.completion_ids)] for number in range(len(prompt_ids))]
        return replace(wave, completion_ids=ids)


class _LargestMicroBatches:
    """A trainer that trains on two micro-batches: the second, the largest, runs with the gradients of the first."""

    def split_rollout(self, rollout: Batch, sampled_after: int) -> MicroBatches:
        """Keeps the two largest micro-batches of the first step."""
        found: MicroBatches = super().split_rollout(rollout, sampled_after)  # type: ignore[misc]
        of_a_step = len(found.slots) // self.batch_plan.steps  # type: ignore[attr-defined]
        kept = sorted(filter(None, found.slots[:of_a_step]), key=_tokens)[-2:]
        self.keep_micro_batches([*kept, *[None] * (len(found.slots) - len(kept))])  # type: ignore[attr-defined]
        return found


def _tokens(batch: Batch) -> int:
    """Returns the tokens of a micro-batch, including padding."""
    return int(batch["prompt_ids"].numel() + batch["completion_ids"].numel())


def trainer_of(
    sampler: Sampler,
    examples: Sequence[Example],
    rewards: int,
    out: Path,
    hooks: Hooks,
    *,
    repeats_nothing: bool,
) -> Any:
    """Returns a trainer of the examples with as many rewards as the run has, all of them alternating."""
    setup = TrainerSetup(
        config=sampler.config,
        sampler=sampler,
        dataset=to_dataset(examples),
        reward_functions=[_AlternatingReward() for _ in range(rewards)],
        prompt_tokens=tokens_of(sampler.policy, {example.id: example for example in examples}),
        out=out,
        hooks=hooks,
    )
    return make_trainer(sampler.policy, setup, (_OneWave, _LargestMicroBatches) if repeats_nothing else ())


class _AlternatingReward:
    """Pays every second completion, so that every group is informative."""

    __name__ = "alternating"

    def __call__(self, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
        return [float(number % 2) for number in range(len(completion_ids))]
