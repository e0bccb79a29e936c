"""The hook of a run's `trainable.schedule`; none if it is fixed."""

from collections.abc import Callable, Iterator

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.peft_model import ModelLike
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.training.autofreeze_layers import AutoFreezeLayers
from lowmem_rl.training.learning_layers import LearningLayers, Unit
from lowmem_rl.training.slimfit_units import SlimFitUnits


def schedule_hook(
    config: RunConfig, run_dir: RunDir, model: ModelLike, report: Callable[[str], None], steps: int
) -> Iterator[LearningLayers]:
    """Yields the hook of a run that has taken `steps` steps."""
    schedule = LayerSchedule.of(config, model.config.num_hidden_layers)
    match config.trainable.schedule:
        case "fixed":
            return
        case "autofreeze":
            yield AutoFreezeLayers(run_dir, schedule, model, report)
        case "slimfit":
            yield SlimFitUnits(run_dir, schedule, model, report)
        case _:
            yield LearningLayers(run_dir, schedule, model, steps)


def hook_of_step(config: RunConfig, run_dir: RunDir, model: ModelLike, step: int) -> Iterator[LearningLayers]:
    """Yields the hook of a single step, of which the layers learn that `step` of the run has."""
    if config.trainable.schedule in ("fixed", "autofreeze", "slimfit"):  # measurements choose later layers
        yield from schedule_hook(config, run_dir, model, lambda text: None, 0)
    else:
        schedule = LayerSchedule.of(config, model.config.num_hidden_layers)
        yield _OneStep(run_dir, schedule, model, step - 1)


class _OneStep(LearningLayers):
    """Lets the same layers learn on, whichever step the trainer counts."""

    def _next(self, step: int) -> tuple[Unit, ...]:
        return self.layers
