"""Sums each layer's gradients over a period, and stops the layers at the bottom that AutoFreeze names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.engine.peft_model import ModelLike
from lowmem_rl.phases import Phase
from lowmem_rl.storage.run_dir import Row, RunDir
from lowmem_rl.trainable.autofreeze import changes, percentile_of, shares, still_learning
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.training.scored_layers import ScoredLayers

_NO_SIGNAL = "no group of the period was informative"


class AutoFreezeLayers(ScoredLayers):
    """An adapter's gradients are summed where they are, those of whole weights in host RAM, in bfloat16."""

    def __init__(
        self, run_dir: RunDir, schedule: LayerSchedule, model: ModelLike, report: Callable[[str], None]
    ) -> None:
        super().__init__(run_dir, schedule, model, report)
        self.sums: dict[int, list[Any]] = {
            layer: list(map(self._zeros, self.weights[layer])) for layer in schedule.layers if layer in self.weights
        }
        """Of each layer that learns the sums of its weights' gradients over the present period."""
        self.norms: dict[int, float] = {}
        """Of each layer Delta of the last period that was informative."""
        self.is_informative = False
        self.unclip = 0.0
        """What the present gradient is to be multiplied by; 0 if it is not to be counted."""

    def on_clipped(self, factor: Any) -> None:
        """A gradient that is not finite leads to no step, or ends the run: it is not counted."""
        self.unclip = 1 / float(factor) if factor > 0 else 0.0  # NaN is above nothing

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Counts the gradient between `before_optimizer_step` and the step: from then on no checkpoint is written.

        Before clipping it would be the gradient itself, which is the same to float32's rounding.
        """
        if name == "optimizer" and self.unclip:
            self._add_gradients()
            self.unclip = 0.0
        with super().phase(name):
            yield

    def _add_gradients(self) -> None:
        for layer, sums in self.sums.items():
            for total, weight in zip(sums, self.weights[layer], strict=True):
                if weight.grad is not None:
                    total.add_(weight.grad.to(total.device), alpha=self.unclip)

    def _zeros(self, weight: Any) -> Any:
        import torch

        if self.schedule.trainable.method == "lora":
            return torch.zeros_like(weight, requires_grad=False)
        return torch.zeros(weight.shape, dtype=torch.bfloat16)

    def _described(self) -> Row:
        return {"layers": list(self.layers)}

    def _measure(self, row: Row) -> None:
        self.is_informative = self.is_informative or row.get("informative_share", 0) > 0

    def _end_period(self) -> Row:
        if len(self.layers) == 1:
            return {}  # it stays
        found, self.is_informative = self._compared() if self.is_informative else {"skipped": _NO_SIGNAL}, False
        compared = map(int, self.layers if len(self.layers) > 1 else ())
        self.sums = {layer: [total.zero_() for total in self.sums[layer]] for layer in compared}
        return found

    def _compared(self) -> Row:
        import torch

        before, self.norms = (
            self.norms,
            {
                layer: sum(float(torch.linalg.vector_norm(total, 1, dtype=torch.float32)) for total in sums)
                for layer, sums in self.sums.items()
            },
        )
        return self._compare(before, self.norms) if before else {}

    def _compare(self, before: dict[int, float], now: dict[int, float]) -> Row:
        percentile = self.schedule.trainable.percentile
        eta, share_eta = changes(before, now), changes(shares(before, now), shares(now, now))
        remaining = still_learning(eta, percentile)
        if stopped := tuple(layer for layer in now if layer not in remaining):
            self.report(f"autofreeze: layers that learn from now on: {text_of(remaining)}; stopped: {text_of(stopped)}")
        self.layers = remaining
        return {"scores": {"eta": eta, "share_eta": share_eta, "threshold": percentile_of([*eta.values()], percentile)}}

    def _state(self) -> dict[str, Any]:
        sums = {layer: [total.cpu() for total in sums] for layer, sums in self.sums.items()}
        return {"sums": sums, "norms": self.norms, "is_informative": self.is_informative}

    def _load_state(self, state: dict[str, Any]) -> None:
        self.norms, self.is_informative = state["norms"], state["is_informative"]
        self.sums = {
            layer: [self._zeros(weight).copy_(total) for total, weight in zip(sums, self.weights[layer], strict=True)]
            for layer, sums in state["sums"].items()
        }
