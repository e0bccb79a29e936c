"""Writes what was learned into adapter/ and, if that is whole weights, into weights/, however training ends."""

from functools import partial
from pathlib import Path

from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.engine.oom import OutOfMemory, catch_oom
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.weights_files import save_learned
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.storage.disk import write_dir_atomic
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.telemetry.events import AdapterSaved, Listener
from lowmem_rl.training.peak_memory import PeakMemory


class AdapterSaver:
    """Saves a run's adapter; a resumed run whose checkpoint is not loaded yet keeps the adapter that it has."""

    def __init__(
        self, run_dir: RunDir, policy: Policy, oom_policy: OomPolicy, peaks: PeakMemory, checkpoint: Path | None
    ) -> None:
        self.run_dir, self.policy, self.oom_policy, self.peaks = run_dir, policy, oom_policy, peaks
        self.checkpoint = checkpoint
        self.is_current = checkpoint is None

    def load_checkpoint(self) -> None:
        """Loads the checkpoint's weights; after the trainer is made: the weights that it finds are its reference."""
        if self.checkpoint:
            load_adapter(self.policy.model, self.checkpoint)
        self.is_current = True

    def save(self, listen: Listener) -> None:
        """Writes adapter/, weights/ and peak.json. Raises `TrainingError` if memory runs out twice."""
        if not self.is_current:
            return
        # A 4-bit model's `state_dict` packs its quantisation's constants on the card: that may need a second try.
        if isinstance(catch_oom(self._write), OutOfMemory):
            with self.oom_policy.raising_on_oom("between", lambda: "While the adapter was saved"):
                self._write()
        self.peaks.write()
        listen(AdapterSaved(self.run_dir.adapter))

    def _write(self) -> None:
        write_dir_atomic(self.run_dir.adapter, self.policy.save_adapter)
        if self.policy.trainable.method == "full":
            write_dir_atomic(self.run_dir.weights, partial(save_learned, self.policy, self.run_dir.adapter))
