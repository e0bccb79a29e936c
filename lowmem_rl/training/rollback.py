"""Going back: the weights of the last healthy checkpoint, and on from there at half the learning rate.

So OPT-175B was trained through its divergences (arXiv 2205.01068, section 2.5). Steps and data go on instead of being
taken again, as PaLM skipped the batches of a spike (arXiv 2204.02311, section 5.1): the same data at the same rate,
with the seed fixed, would collapse the same way.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import TrainingError
from lowmem_rl.health.finding import Finding
from lowmem_rl.health.record import RollBack
from lowmem_rl.runs import RunDir, append_row, read_rows

MOST_ROLLBACKS = 3
"""A run that collapses at an eighth of its learning rate suffers from something else."""
SLOWER = 0.5
NAME = re.compile(r"step-(\d{6,})")
ADAPTER, OPTIMIZER = "adapter_model.safetensors", "optimizer.pt"


def go_back(ailing: Sequence[Finding], step: int, run_dir: RunDir, policy: Policy, trainer: Any) -> RollBack:
    """Puts back the last checkpoint from before anything ailed, halves the learning rate, and writes that down.

    Checkpoints after that one are removed: a run that is taken up again must not begin at a collapsed one. Raises
    `TrainingError` with healthy weights in place, the base model's at worst, where going on would lead nowhere: there
    is no checkpoint that healthy, or the run went back often enough.
    """
    worst, first = ailing[0], min(finding.steps[0] for finding in ailing if finding.severity != "note")
    to = max((known for known in checkpoints(run_dir) if known < first), default=0)
    for sick in checkpoints(run_dir):
        if sick > to:
            shutil.rmtree(run_dir.checkpoint(sick))
    restore(trainer, policy, run_dir.checkpoint(to) if to else None)
    slow_down(trainer)
    before = len(list(read_rows(run_dir.rollbacks)))
    append_row(run_dir.rollbacks, {"step": step, "to": to, "finding": worst.name, "learning_rate": rate_of(trainer)})
    if not to:
        raise stopped(
            worst, step, "There is no healthy checkpoint before that: the weights are the base model's again."
        )
    if before == MOST_ROLLBACKS:
        raise stopped(worst, step, f"After {before} roll-backs the run ends, with the weights of step {to}.")
    return RollBack(step, to)


def stopped(finding: Finding, step: int, what_now: str) -> TrainingError:
    """Returns what a run ends with that a finding has stopped."""
    first, last = finding.steps
    return TrainingError(
        f"Step {step}: {finding.name} (steps {first} to {last}). {finding.what} {what_now}", hint=finding.cure
    )


def checkpoints(run_dir: RunDir) -> list[int]:
    """Returns the steps of a run's checkpoints."""
    folder = run_dir.checkpoint(0).parent
    names = (NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(name[1]) for name in names if name)


def restore(trainer: Any, policy: Policy, checkpoint: Path | None) -> None:
    """Puts weights and optimizer back, without a checkpoint those of the beginning; a rollout under way is dropped."""
    import torch

    optimizer = trainer.optimizer
    optimizer.state.clear()
    if checkpoint is None:
        _become_base(policy)
    else:
        _load(policy, checkpoint / ADAPTER)
        if (saved := checkpoint / OPTIMIZER).is_file():
            optimizer.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True))
    trainer._buffered_inputs = None  # sampled by the collapsed policy


def slow_down(trainer: Any) -> None:
    """Multiplies the learning rate, now and for the rest of its schedule."""
    scheduler = trainer.lr_scheduler
    scheduler.base_lrs = [SLOWER * rate for rate in scheduler.base_lrs]
    for group, rate in zip(trainer.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = SLOWER * rate
    scheduler._last_lr = [group["lr"] for group in trainer.optimizer.param_groups]


def rate_of(trainer: Any) -> float:
    """Returns the peak learning rate that the schedule is made of now."""
    return float(trainer.lr_scheduler.base_lrs[0])


def _load(policy: Policy, weights: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(policy.model, load_file(weights))


def _become_base(policy: Policy) -> None:
    """A LoRA whose second factor is zero changes nothing."""
    import torch

    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if weight.requires_grad and "lora_B" in name:
                weight.zero_()
