"""The moment between two optimizer steps: TRL's and transformers' state captured, saved, restored.

transformers restores weights, optimizer, schedule, scaler and random states, and its place in the data; the last one is
completed here. The rollout that later steps share, and what TRL and the hooks count, are ours.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lowmem_rl.checkpointing.checkpoint_storage import COUNTS
from lowmem_rl.checkpointing.trainer_state import OPTIMIZER, RANDOM, ROLLOUT, SCALER, STATE, TrainerSnapshot
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.engine.kept_states import KeptStates
from lowmem_rl.engine.parking import HOST, move_states
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.reference import become_start
from lowmem_rl.engine.rng import rng_states
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.unsloth_shortcuts import given_up, restore_shortcut_notes, shortcut_notes
from lowmem_rl.grpo.batch import Batch
from lowmem_rl.grpo.micro_batches import BatchPlan
from lowmem_rl.storage.run_dir import read_json, write_json
from lowmem_rl.training.step import Hooks

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`

CUT_FINER = ("cuts_each_into", "keeps_groups")
"""Fields of a batch plan that change when memory runs out."""


class StepBoundaryMixin(TrlTrainer):
    """Calls `at_boundary`, and is the hooks' `TrainerLike`."""

    config: RunConfig
    hooks: Hooks
    policy: Policy
    sampler: Sampler
    batch_plan: BatchPlan
    kept: KeptStates | None
    rollout: Batch
    sampled_after: int
    given_up: frozenset[str]
    _buffered_inputs: list[Batch | None] | None
    split_rollout: Callable[[Batch, int], Any]
    write_step_row: Callable[[Callable[[], None]], None]
    on_restored: Callable[[], None] = staticmethod(lambda: None)
    resumed_after = 0
    """The step after which this process began."""
    is_extended = False
    """True if the checkpoint is of the same run with fewer steps."""
    last_boundary = 0
    """The last step after which the hooks were called."""

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        return int(self.state.global_step)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """The first moment at which a step is over for TRL, too: its metrics are logged and cleared."""
        self.write_step_row(partial(super()._maybe_log_save_evaluate, *args, **kwargs))
        if self.step > self.last_boundary:  # the end of an epoch passes here once more
            self.last_boundary = self.step
            if self._is_used_up:
                self.kept = None
            self.hooks.at_boundary(self)

    def take_snapshot(self) -> TrainerSnapshot:
        """Captures what moves within a step."""
        state = copy.copy(self.state)
        state.log_history = []  # it grows with the run, and metrics.jsonl has it
        counts = {**self.hooks.state_dict(), "sampling": self.sampler.backend.to_json()}
        return TrainerSnapshot(self.step, rng_states(), state, self._rollout_state(), counts)

    def save_snapshot(self, snapshot: TrainerSnapshot, folder: Path) -> None:
        """Writes the snapshot and the present weights into an empty folder, which is an adapter's folder, too."""
        self.policy.save_adapter(folder)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        torch.save(snapshot.random, folder / RANDOM)
        torch.save(snapshot.rollout, folder / ROLLOUT)
        snapshot.state.save_to_json(str(folder / STATE))
        write_json(folder / COUNTS, snapshot.counts)
        self.hooks.save(folder)

    def _rollout_state(self) -> dict[str, Any]:
        """Returns the present rollout, None if the next step samples a new one, and how it is cut."""
        is_over = self._is_used_up or self._buffered_inputs is None  # None: the run was rolled back
        return {
            "micro_batches_done": self._step,
            "layout": {name: getattr(self.batch_plan, name) for name in CUT_FINER},
            "rollout": None if is_over else dict(self.rollout),
            "kept_states": None if is_over or self.kept is None else self.kept.state_dict(),
            "sampled_after": self.sampled_after,
            "shortcuts": shortcut_notes(self.model),
        }

    @property
    def _is_used_up(self) -> bool:
        """True if the next step samples a new rollout."""
        return self._step % (self.args.steps_per_generation * self.num_iterations) == 0

    def resume_after(self, step: int, folder: Path, on_restored: Callable[[], None]) -> None:
        """Restores what transformers does not know of; it reads the rest in `train()`, then `on_restored` is called."""
        found = torch.load(folder / ROLLOUT, weights_only=True)
        self._step, self.resumed_after, self.last_boundary = found["micro_batches_done"], step, step
        self.on_restored = on_restored
        self.is_extended = read_json(folder / STATE)["max_steps"] != self.args.max_steps
        self.batch_plan = replace(self.batch_plan, **found["layout"])
        restore_shortcut_notes(self.model, found.get("shortcuts", {}))
        self.given_up = given_up(self.model)
        if (kept := found.get("kept_states")) is not None:
            on_card = self.config.memory.kept_states == "card"
            self.kept = KeptStates.from_state_dict(kept).parked(self.policy.model.device, on_card=on_card)
        if found["rollout"] is not None:
            self.split_rollout(found["rollout"], found["sampled_after"])
        self.hooks.restore(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Loads into the present adapter; transformers would add another one."""
        load_adapter(self.model, Path(resume_from_checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The last thing that is restored, right before the first step."""
        super()._load_rng_state(checkpoint)
        if self.is_extended:
            self._follow_schedule()
        self.on_restored()

    def _follow_schedule(self) -> None:
        """Takes the longer run's learning rate for the next step: the checkpoint has the shorter run's."""
        scheduler = self.lr_scheduler
        peaks = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        rates = [peak * factor(scheduler.last_epoch) for peak, factor in peaks]
        scheduler._last_lr = rates
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """Draws the orders of the epochs that are over, which transformers leaves out."""
        sampler = super()._get_train_sampler(dataset)
        rows_per_step = self.args.train_batch_size * self.args.steps_per_generation
        steps_per_epoch = len(sampler) // rows_per_step // self.args.gradient_accumulation_steps
        for _ in range(self.resumed_after // max(steps_per_epoch, 1)):
            next(iter(sampler), None)
        return sampler

    def restore_weights(self, folder: Path | None) -> None:
        """Loads a checkpoint's weights and optimizer, without one those of the start, and drops the present rollout.

        The gradient scaler is restored with them: if gradients overflowed, its scale has fallen to one at which
        healthy gradients would vanish.
        """
        if folder is None:
            become_start(self.policy.model)
            self.optimizer.state.clear()
        else:
            load_adapter(self.policy.model, folder)
            self.optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True))
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(torch.load(folder / SCALER, weights_only=True))
            self.hooks.restore(folder)
        self._buffered_inputs = self.kept = None  # sampled by the collapsed policy

    def scale_learning_rate(self, factor: float) -> float:
        """Multiplies the learning rate, now and for the rest of its schedule; returns the new peak."""
        scheduler = self.lr_scheduler
        scheduler.base_lrs = [factor * rate for rate in scheduler.base_lrs]
        scheduler._last_lr = [factor * rate for rate in scheduler.get_last_lr()]
        for group, rate in zip(self.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        return float(scheduler.base_lrs[0])

    def drop_optimizer_state(self, weights: Sequence[Any]) -> None:
        """Lets the optimizer forget what it holds for these weights; it begins with the next gradient of each."""
        for weight in weights:
            self.optimizer.state.pop(weight, None)

    def park_optimizer_state(self, weights: Sequence[Any]) -> None:
        """Moves what the optimizer holds for these weights to host RAM."""
        move_states(self.optimizer, weights, HOST)

    def fetch_optimizer_state(self, weights: Sequence[Any]) -> None:
        """Moves what the optimizer holds for these weights to where each weight is."""
        for weight in weights:
            move_states(self.optimizer, [weight], weight.device)

    def log_to_trackers(self, values: Mapping[str, float]) -> None:
        """Logs values that are no part of a step's logs, under the present step."""
        if values:
            self.callback_handler.on_log(self.args, self.state, self.control, dict(values))
