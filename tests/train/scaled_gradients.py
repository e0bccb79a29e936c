"""What the optimizer sees in the first step of runs that `scale-out --to trl` has written, with given completions.

`accelerate launch --config_file FOLDER/accelerate.yaml -m tests.train.scaled_gradients OUT FOLDER...` runs the
`train.py` of each folder; process 0 saves a file of gradients by weight for each.
"""

import json
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

SEED = 0
SPREAD = 0.02
"""Of LoRA's B: at its usual zero A has no gradient, and the KL to the base none either."""


def completion_of(prompt_ids: Sequence[int], number: int) -> list[int]:
    """Returns the completion `number` of a prompt's group: 4 to 23 tokens and the end."""
    generator = torch.Generator().manual_seed(sum(prompt_ids) * 31 + number)
    length = int(torch.randint(4, 24, (1,), generator=generator))
    return [*torch.randint(5, 200, (length,), generator=generator).tolist(), 2]


class GivenCompletions:
    """Mixin for a trainer: samples nothing."""

    args: Any
    accelerator: Any

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        first = self.accelerator.process_index * len(prompt_ids)
        size = self.args.num_generations
        return [completion_of(ids, (first + number) % size) for number, ids in enumerate(prompt_ids)], None


class Gradients(TrainerCallback):
    """Keeps the gradient of the first step, by the weight's name."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        named = model.named_parameters()
        self.found = {n.removeprefix("module."): p.grad.clone() for n, p in named if p.grad is not None}


def main(out: Path, folders: Sequence[Path]) -> None:
    """Takes one step of each run."""
    for folder in folders:
        settings = json.loads((folder / "trl.json").read_text("utf-8"))
        settings["grpo_config"] |= {"save_strategy": "no"}
        program = runpy.run_path(str(folder / "train.py"))
        program["import_trl"](on_cpu=True)
        gradients = gradients_of(folder, settings, program["make_trainer"])
        if int(os.environ.get("RANK", "0")) == 0:
            torch.save(gradients, out / f"{folder.name}.pt")


def gradients_of(folder: Path, settings: dict[str, Any], make_trainer: Any) -> dict[str, torch.Tensor]:
    """Returns the gradient of the first step."""
    from trl import GRPOTrainer

    from lowmem_rl.rewards.isolated import isolated
    from lowmem_rl.rewards.reward_registry import load_reward_set
    from lowmem_rl_bench.step.stacks import fill_adapter

    gradients = Gradients()
    with isolated(load_reward_set(settings["rewards"])) as rewards:
        kind = type("Given", (GivenCompletions, GRPOTrainer), {})
        trainer = make_trainer(folder, settings, rewards, kind, [gradients])
        fill_adapter(trainer.model, SEED, SPREAD)
        trainer.train()
    return gradients.found


if __name__ == "__main__":
    main(Path(sys.argv[1]), [*map(Path, sys.argv[2:])])
