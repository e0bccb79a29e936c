"""The state of a run at the border of two steps: taken in memory, written to a folder, and put back.

What only an optimizer step changes (weights, its own state, schedule, gradient scaler) is read where it stands, at the
moment of writing. The rest moves on within a step and is taken at its border, which is cheap: so a run can be saved
exactly while the next step is being sampled, and that step is taken again by the run that goes on.

transformers puts back weights, optimizer, schedule, scaler, random states, and its place in the data; the last one
is completed here. The rollout that later steps share, and what TRL and we count, are ours.
"""

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import RunDirError
from lowmem_rl.runs import write_json
from lowmem_rl.training.checkpoints import COUNTS

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`

ADAPTER = "adapter_model.safetensors"
ROLLOUT = "rollout.pt"
RANDOM, STATE = "rng_state.pth", "trainer_state.json"
"""transformers' names, which its own readers look for."""


OVERRIDDEN = ("_maybe_log_save_evaluate", "_load_from_checkpoint", "_load_rng_state", "_get_train_sampler")
"""Methods of transformers' and TRL's that ours call through to, or stand for."""


@dataclass(frozen=True, slots=True)
class Border:
    """What is taken at the border behind `step`."""

    step: int
    random: dict[str, Any]
    state: Any
    """transformers' TrainerState."""
    rollout: dict[str, Any]
    """The micro-batches that are still to be learnt from, and how many were."""
    counts: dict[str, Any]
    """What we count ourselves, as plain JSON data."""


def border_of(trainer: Any, counts: dict[str, Any]) -> Border:
    """Returns the present border of the trainer's steps."""
    state = copy.copy(trainer.state)
    state.log_history = []  # it grows with the run, and metrics.jsonl has it
    return Border(state.global_step, random_states(), state, trainer.rollout_state(), counts)


def write_border(border: Border, trainer: Any, policy: Policy, folder: Path) -> None:
    """Writes the run as it was at the border into an empty folder, which is an adapter's folder, too."""
    policy.save_adapter(folder)
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_scaler(str(folder))
    torch.save(border.random, folder / RANDOM)
    torch.save(border.rollout, folder / ROLLOUT)
    border.state.save_to_json(str(folder / STATE))
    write_json(folder / COUNTS, border.counts)


def load_weights(model: Any, folder: Path) -> None:
    """Puts a checkpoint's trainable weights into the model. Raises `RunDirError` where they are not this model's."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(folder / ADAPTER)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    try:
        found = set_peft_model_state_dict(model, weights)
        lacking = learning.intersection(found.missing_keys)
    except RuntimeError as error:  # another shape
        raise _other_model(folder) from error
    if lacking or found.unexpected_keys:
        raise _other_model(folder)


def _other_model(folder: Path) -> RunDirError:
    return RunDirError(
        f"The weights in {folder} are not those of this run's model and adapter.",
        hint="Put config.json back as it was when the run began.",
    )


def random_states() -> dict[str, Any]:
    """Returns the states of all global random numbers, as transformers writes them."""
    states = {"python": random.getstate(), "numpy": numpy.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Puts them back at the end: what is done in between draws no number from a training."""
    states = random_states()
    try:
        yield
    finally:
        random.setstate(states["python"])
        numpy.random.set_state(states["numpy"])
        torch.set_rng_state(states["cpu"])
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])


class Borders(TrlTrainer):
    """A trainer that tells of each border, and that can begin at one."""

    _buffered_inputs: list[dict[str, Any] | None] | None
    on_border: Callable[[], None] = staticmethod(lambda: None)
    on_restored: Callable[[], None] = staticmethod(lambda: None)
    begun_at = 0
    """The step behind which this process began."""
    told = 0
    """The last step whose border was told of."""

    def begin_at(self, folder: Path, step: int) -> None:
        """Puts back what transformers does not know of; it reads the rest when it trains."""
        rollout = torch.load(folder / ROLLOUT, weights_only=True)
        self._step, self._buffered_inputs = rollout["micro_batches_done"], rollout["micro_batches"]
        self.begun_at = self.told = step

    def rollout_state(self) -> dict[str, Any]:
        """Returns what is left to learn from the present rollout, None where the next step samples a new one."""
        micro_batches = None
        if self._buffered_inputs and self._step % (self.args.steps_per_generation * self.num_iterations):
            micro_batches = [batch and dict(batch) for batch in self._buffered_inputs]
        return {"micro_batches_done": self._step, "micro_batches": micro_batches}

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """The first moment at which a step is over for TRL, too: its metrics are told and cleared."""
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self.state.global_step > self.told:  # the end of an epoch passes here once more
            self.told = self.state.global_step
            self.on_border()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Loads into the adapter that is there; transformers would add it once more."""
        load_weights(self.model, Path(resume_from_checkpoint))

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
