"""Writes engine.json: what samples and why, a CPU's threads, and on a GPU whether the kernels share prompts."""

from typing import Any

from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.engine.policy import shares_prompts
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.storage.run_dir import RunDir, write_json


class BackendRecord:
    """Written before training, after the first step, which shows the kernels that ran, and after the last one."""

    def __init__(self, run_dir: RunDir, sampler: Sampler) -> None:
        self.run_dir, self.sampler = run_dir, sampler
        self.write()

    def on_step(self, row: dict[str, Any], trainer: TrainerLike) -> None:
        """Writes it again after the first step."""
        if row["step"] == 1:
            self.write()

    def write(self) -> None:
        """Writes the file."""
        policy = self.sampler.policy
        sharing = shares_prompts(policy) if policy.device.is_gpu else None
        record = {"sampling": self.sampler.backend.to_json(), "update_shares_prompts": sharing}
        write_json(self.run_dir.engine, record | {"threads": policy.threads and policy.threads.to_json()})
