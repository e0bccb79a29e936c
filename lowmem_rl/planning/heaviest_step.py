"""The step that decides a run's memory: the one in which most layers learn, taken as the first of a run."""

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.trainable.selection import worst_case


def heaviest_step(config: RunConfig, depth: int) -> tuple[RunConfig, LayerSchedule, int]:
    """Returns the run of that one step for a model of `depth` layers, the whole run's schedule, and the step's number.

    No layers are selected: the worst choice counts. Raises `ConfigError` for layers that the model lacks.
    """
    worst = worst_case(config, depth)
    schedule = LayerSchedule.of(worst, depth)
    step = schedule.heaviest_step(worst.grpo.steps)
    # The trainer counts this step as its first, and keeps states for the layers of that one.
    kept = {} if schedule.at(step) == schedule.at(1) else {"memory.kept_states": "off"}
    return with_overrides(worst, {"grpo.steps": 1, "logging.report_to": (), **kept}), schedule, step
