"""Which layers learned when, arm by arm: a picture of the first run of each."""

from collections.abc import Iterator
from dataclasses import dataclass

from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sections.layers import LayerStrip, any_layer_strip, what_learned
from lowmem_rl.storage.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class ArmStrip:
    """One arm's picture."""

    title: str
    """Arm and seed, with the task if there are several."""
    words: str
    """Which weights learned, and when."""
    strip: LayerStrip


def strips_of(study: Study, directory: StudyDir) -> list[ArmStrip]:
    """Returns a picture for each task and arm that has a run; none if all layers of all of them learned in all steps.

    It is of the arm's first seed that has recorded its layers. Raises `RunDirError` for a damaged run.
    """
    arms = ((task, arm.name) for task in study.tasks for arm in study.arms)
    found = [strip for task, arm in arms if (strip := next(_strips(study, task, arm, directory), None))]
    return found if any(one.strip.has_gaps for one in found) else []


def _strips(study: Study, task: str, arm: str, directory: StudyDir) -> Iterator[ArmStrip]:
    """Yields the pictures of an arm's runs, by seed."""
    prefix = f"{task}: " if len(study.tasks) > 1 else ""
    for seed in study.seeds:
        path = directory.path / Trial(task, arm, seed).place
        if not RunDir(path).config.exists():
            continue
        record = read_record(path)
        if strip := any_layer_strip(record):
            words = ". ".join(filter(None, (what_learned(record), strip.sentence)))
            words = words[:1].upper() + words[1:]
            yield ArmStrip(one_line(f"{prefix}{arm}, seed {seed}", 200), words, strip)
