"""The state of a run at the border of two steps: taken in memory, written to a folder, and put back.

What only an optimizer step changes (weights, its own state, schedule, gradient scaler) is read where it stands, at the
moment of writing. The rest moves on within a step and is taken at its border, which is cheap: so a run can be saved
exactly while the next step is being sampled, and that step is taken again by the run that goes on.

transformers puts back weights, optimizer, schedule, scaler, random states, and its place in the data; the last one
is completed here. The rollout that later steps share, and what TRL and we count, are ours.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lowmem_rl.checkpointing.checkpoint_storage import COUNTS
from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.rng import rng_states
from lowmem_rl.engine.unsloth_shortcuts import given_up, restore_shortcut_notes, shortcut_notes
from lowmem_rl.grpo.micro_batches import Batch, BatchPlan
from lowmem_rl.storage.run_dir import write_json

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`

ROLLOUT = "rollout.pt"
RANDOM, STATE = "rng_state.pth", "trainer_state.json"
"""transformers' names, which its own readers look for."""


CUT_FINER = ("cuts_each_into", "keeps_groups")
"""What of a layout changes when memory has run out."""


@dataclass(frozen=True, slots=True)
class TrainerSnapshot:
    """What is taken at the border behind `step`."""

    step: int
    random: dict[str, Any]
    state: Any
    """transformers' TrainerState."""
    rollout: dict[str, Any]
    """What is still to be learnt from, how it is cut, and what Unsloth has noted on the model."""
    counts: dict[str, Any]
    """What we count ourselves, as plain JSON data."""


def take_snapshot(trainer: Any, counts: dict[str, Any]) -> TrainerSnapshot:
    """Returns the present border of the trainer's steps."""
    state = copy.copy(trainer.state)
    state.log_history = []  # it grows with the run, and metrics.jsonl has it
    return TrainerSnapshot(state.global_step, rng_states(), state, trainer.rollout_state(), counts)


def save_snapshot(border: TrainerSnapshot, trainer: Any, policy: Policy, folder: Path) -> None:
    """Writes the run as it was at the border into an empty folder, which is an adapter's folder, too."""
    policy.save_adapter(folder)
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_scaler(str(folder))
    torch.save(border.random, folder / RANDOM)
    torch.save(border.rollout, folder / ROLLOUT)
    border.state.save_to_json(str(folder / STATE))
    write_json(folder / COUNTS, border.counts)


class StepBoundaryMixin(TrlTrainer):
    """A trainer that tells of each border, and that can begin at one."""

    layout: BatchPlan
    rollout: Batch
    sampled_after: int
    given_up: frozenset[str]
    _buffered_inputs: list[Batch | None] | None
    lay_out: Callable[[Batch, int], Any]
    write_row: Callable[[Callable[[], None]], None]
    on_border: Callable[[], None] = staticmethod(lambda: None)
    on_restored: Callable[[], None] = staticmethod(lambda: None)
    begun_at = 0
    """The step behind which this process began."""
    told = 0
    """The last step whose border was told of."""

    def begin_at(self, folder: Path, step: int) -> None:
        """Puts back what transformers does not know of; it reads the rest when it trains."""
        found = torch.load(folder / ROLLOUT, weights_only=True)
        self._step, self.begun_at, self.told = found["micro_batches_done"], step, step
        self.layout = replace(self.layout, **found["layout"])
        restore_shortcut_notes(self.model, found.get("shortcuts", {}))
        self.given_up = given_up(self.model)
        if found["rollout"] is not None:
            self.lay_out(found["rollout"], found["sampled_after"])

    def rollout_state(self) -> dict[str, Any]:
        """Returns the present rollout, None where the next step samples a new one, and how it is cut."""
        is_used_up = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        is_dropped = self._buffered_inputs is None  # the run went back
        return {
            "micro_batches_done": self._step,
            "layout": {name: getattr(self.layout, name) for name in CUT_FINER},
            "rollout": None if is_used_up or is_dropped else dict(self.rollout),
            "sampled_after": self.sampled_after,
            "shortcuts": shortcut_notes(self.model),
        }

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """The first moment at which a step is over for TRL, too: its metrics are told and cleared."""
        self.write_row(partial(super()._maybe_log_save_evaluate, *args, **kwargs))
        if self.state.global_step > self.told:  # the end of an epoch passes here once more
            self.told = self.state.global_step
            self.on_border()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Loads into the adapter that is there; transformers would add it once more."""
        load_adapter(self.model, Path(resume_from_checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The last thing that is put back, right before the first step."""
        super()._load_rng_state(checkpoint)
        self.on_restored()

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """Draws the orders of the epochs that are over, which transformers leaves out."""
        sampler = super()._get_train_sampler(dataset)
        rows_per_step = self.args.train_batch_size * self.args.steps_per_generation
        steps_per_epoch = len(sampler) // rows_per_step // self.args.gradient_accumulation_steps
        for _ in range(self.begun_at // max(steps_per_epoch, 1)):
            next(iter(sampler), None)
        return sampler
