"""One GRPO step, in the order of time, and the hooks that take part in it.

A run is `GRPOTrainer.train()` with the overrides of `trl_adapter`, which call the rooms named below and, at fixed
moments, the hooks. P prompts, G completions each, P G rows; o_it is token t of completion i. Items 1-5 run only when
the last rollout is used up: every `grpo.steps_per_rollout * grpo.passes_per_rollout` steps.

1. **Choose prompts.** `choose_prompts`: the rows that the data set has for this round, or others (a curriculum).
2. **Rollout**, phase `rollout`. `engine.sampler` samples G completions of each prompt: our engine, `generate` or vLLM.
   With `memory.kept_states` our engine also keeps what enters the lowest layer that learns (`engine.kept_states`).
3. **Score**, phase `scoring`. The rewards give r_i = sum over rewards of weight x score. Then `on_scored`.
4. **Advantages**, phase `logprobs`, by TRL (`GRPOTrainer._generate_and_score_completions`; DeepSeekMath, arXiv
   2402.03300, section 4.1.2). mean and std are over the G completions of i's prompt:

       A_i = (r_i - mean(r)) / (std(r) + 1e-4)      grpo.scale_rewards = "group"; "batch": std over all P G rows
       A_i =  r_i - mean(r)                         grpo.scale_rewards = "none" (Dr. GRPO, arXiv 2503.20783)

   With grpo.baseline = "median" by `grpo.advantages`: median(r) in the place of mean(r) (MC-GRPO, arXiv 2601.22582).

   Groups whose rewards are all equal have A = 0 and no gradient. With `grpo.resample_rounds` they are replaced, by 1-4
   for other prompts (`grpo.dynamic_sampling`; DAPO, arXiv 2503.14476). With `grpo.update_rows` only the rows with the
   most widely spread rewards are trained on (`grpo.rollout_downsampling`; PODS, arXiv 2504.13818); their advantages
   are computed again, by `grpo.advantages`: the same equation in a few lines, which a test holds against TRL's.
5. **Log-probs of other policies**, phase `logprobs`: log pi_ref if beta > 0, log pi_old if one rollout is used for
   several steps. Frozen layers below all that learn are left out if the states after them were kept.
6. **Micro-batches.** `grpo.micro_batches`: rows without an advantage are left out, similar lengths are put together,
   padding is cut off, and each row keeps its weight in the step.
7. **Forward and backward** of each micro-batch, both in phase `backward`; forward from the kept states on, if there are
   any (`trl_adapter.forward_start`), backward to the lowest layer that learns (`trl_adapter.gradient_start`). The loss
   (`grpo.loss`) is TRL's (`GRPOTrainer._compute_loss`; with Unsloth's kernels `grpo_accumulated_loss`), with
   rho_it = pi(o_it) / pi_old(o_it), whose value is 1 in the first step of a rollout:

       l_it = min(rho_it A_i, clip(rho_it, 1 - epsilon, 1 + epsilon_high) A_i) - beta KL_it
       KL_it = pi_ref / pi - log(pi_ref / pi) - 1   (k3 of http://joschu.net/blog/kl-approx.html)

       L = -1/N sum_it l_it      N: completion tokens of the step ("dapo") or of the micro-batch ("bnpo"),
                                 or rows x max_completion_tokens ("dr_grpo")
       L = -mean_i (mean_t l_it)                                         "grpo"

   Until the rollout's first optimizer step, the log-probs in it must be those that the sampler had
   (`trl_adapter.sampler_check`); if not, the next rollout falls back to a slower way.
   If memory runs out, all gradients of the step are computed again with fewer rows together (`grpo.oom_policy`): the
   update is the same, to rounding.
8. **Clip the gradient, step the optimizer**, phase `optimizer`, which is entered for each of them. `on_clipped` and
   `before_optimizer_step` run between the two: from the latter until the snapshot in 10 the run cannot be saved, so a
   Ctrl-C waits; at any other time it ends the step at once, and the run is saved as it was after the step before. If
   memory runs out in the optimizer's step, weights and states are put back and the step is taken again
   (`grpo.oom_retry`).
9. **Metrics.** `on_step`: the hooks before `Recorder` add keys to the step's row, which it writes to metrics.jsonl.
10. **Between two steps.** `at_boundary`: roll back to healthy weights if a finding demands it; let other layers learn
    if `trainable.schedule` says so; capture the state in memory, and write a checkpoint if one is due; deliver a stop
    that was asked for; evaluate if due. In this order no checkpoint holds collapsed weights, a stop loses nothing, and
    neither does a run that ends in an evaluation.

Hooks are called in the order of `HOOK_ORDER`, in every moment. None calls another one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from lowmem_rl.checkpointing.checkpointer import Checkpointer
from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.prompt_order import PromptOrder
from lowmem_rl.grpo.scored_batch import ScoredBatch
from lowmem_rl.grpo.train_dataset import Prompt
from lowmem_rl.phases import Phase
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler
from lowmem_rl.telemetry.step_timer import StepTimer
from lowmem_rl.training.autofreeze_layers import AutoFreezeLayers
from lowmem_rl.training.backend_record import BackendRecord
from lowmem_rl.training.eval_schedule import EvalSchedule
from lowmem_rl.training.health_monitor import HealthMonitor
from lowmem_rl.training.learning_layers import LearningLayers
from lowmem_rl.training.learning_weights import LearningWeights
from lowmem_rl.training.peak_memory import PeakMemory
from lowmem_rl.training.recorder import Recorder
from lowmem_rl.training.reward_errors import RewardErrorCounter
from lowmem_rl.training.signals import StopSignal
from lowmem_rl.training.slimfit_units import SlimFitUnits


class StepHooks(Protocol):
    """The moments of a step. A hook has those methods that it needs, each with this signature."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Surrounds each phase: time, memory."""

    def choose_prompts(self, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
        """Returns the rows to sample for `step` (from 1), each prompt repeated G times."""

    def on_scored(self, batch: ScoredBatch) -> None:
        """After each round of sampling: once, even if later work of the round is repeated after an OOM."""

    def on_clipped(self, factor: Any) -> None:
        """After clipping, which has multiplied the gradient by `factor` (scalar tensor): 0 or NaN if it is not finite.

        To read it is to wait for the card.
        """

    def before_optimizer_step(self) -> None:
        """After clipping, before the weights move."""

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """After the optimizer's step; hooks before `Recorder` may add keys to `row`, which it then writes."""

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Between two steps. An exception ends training, without the later hooks."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run has to know, as plain JSON data under a key of the hook's own."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`, which all hooks have returned together: each reads its own key."""

    def save(self, folder: Path) -> None:
        """Writes a file of its own into a checkpoint: what changes only while none can be written."""

    def restore(self, folder: Path) -> None:
        """Takes back what `save` wrote, when a run resumes and when it rolls back."""


MOMENTS = tuple(name for name in vars(StepHooks) if not name.startswith("_"))
"""The methods that a hook may have."""

HOOK_ORDER: tuple[type, ...] = (
    StepTimer,  # phase: seconds · on_step: into the row
    MemoryProfiler,  # phase: peak bytes of the first step's phases
    PeakMemory,  # on_step: peak bytes into the row · at_boundary: peak.json after the first step
    LearningWeights,  # before_optimizer_step, on_step: which weights learn, and how many keep their value
    PromptOrder,  # choose_prompts · on_scored: which prompts carry signal now
    Recorder,  # on_scored: order.jsonl, samples.jsonl · on_step: completes the row, writes metrics.jsonl
    RewardErrorCounter,  # state_dict: how many scorings failed
    OomPolicy,  # state_dict: how many rows fit
    HealthMonitor,  # on_scored, on_step: audit, findings · at_boundary: roll back, or ask for a stop
    LearningLayers,  # phase, before_optimizer_step: the scheduled layers learn · on_step: trainable.jsonl · at_boundary
    AutoFreezeLayers,  # LearningLayers by summed gradients · on_clipped, phase: sums · save, restore: autofreeze.pt
    SlimFitUnits,  # LearningLayers by how far matrices move · save, restore: slimfit.pt
    Checkpointer,  # at_boundary: capture the trainer's state, write a checkpoint if one is due; before_optimizer_step
    StopSignal,  # before_optimizer_step: defer a stop · at_boundary: deliver it, now that the run is saved
    EvalSchedule,  # at_boundary: evaluate if due; it draws no random number from training
    BackendRecord,  # on_step: engine.json after the first step
)


class Hooks:
    """Calls hooks in the order given, which for those in `HOOK_ORDER` is that one: else it raises `ValueError`."""

    def __init__(self, hooks: Sequence[object] = ()) -> None:
        self.hooks = tuple(hooks)
        places = [HOOK_ORDER.index(known) for hook in hooks for known in HOOK_ORDER if isinstance(hook, known)]
        if places != sorted(places):
            raise ValueError("The hooks are not in the order of HOOK_ORDER.")

    def _all(self, moment: str) -> Iterator[Any]:
        return (getattr(hook, moment) for hook in self.hooks if hasattr(hook, moment))

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Enters the phase in all hooks."""
        with ExitStack() as stack:
            for phase in self._all("phase"):
                stack.enter_context(phase(name))
            yield

    def choose_prompts(self, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
        """Returns the rows to sample after each hook has chosen."""
        chosen = list(prompts)
        for choose in self._all("choose_prompts"):
            chosen = choose(chosen, step)
        return chosen

    def on_scored(self, batch: ScoredBatch) -> None:
        """Passes a scored round on."""
        for on_scored in self._all("on_scored"):
            on_scored(batch)

    def on_clipped(self, factor: Any) -> None:
        """Passes on by what clipping has multiplied the gradient."""
        for on_clipped in self._all("on_clipped"):
            on_clipped(factor)

    def before_optimizer_step(self) -> None:
        """Announces that the weights are about to move."""
        for before in self._all("before_optimizer_step"):
            before()

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """Passes the step's row on."""
        for on_step in self._all("on_step"):
            on_step(row, trainer)

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Runs what happens between two steps."""
        for at_boundary in self._all("at_boundary"):
            at_boundary(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of all hooks."""
        return {key: value for state_dict in self._all("state_dict") for key, value in state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Lets all hooks continue from a state."""
        for load in self._all("load_state_dict"):
            load(state)

    def save(self, folder: Path) -> None:
        """Lets hooks add files to a checkpoint."""
        for save in self._all("save"):
            save(folder)

    def restore(self, folder: Path) -> None:
        """Lets them take back what a checkpoint holds of theirs."""
        for restore in self._all("restore"):
            restore(folder)
