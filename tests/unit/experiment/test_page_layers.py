"""The pictures of which layers learned, arm by arm."""

import re
from pathlib import Path

import pytest

from lowmem_rl.experiment.page import StudyPage, render_study
from lowmem_rl.experiment.page_layers import strips_of
from lowmem_rl.experiment.study import parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.experiment.verdicts import compare_arms
from lowmem_rl.storage.run_dir import RunDir, append_row, read_json, write_json
from tests.run_maker import begin, metric_row

TEXT = """
[study]
name = "layers"
seeds = [7, 3]
baseline = "all"
[arms.all]
[arms.last]
[arms.moving]
"""
LEARNED = {"all": ["0-2", "0-2"], "last": ["2", "2"], "moving": ["0", "2"]}


def learn(directory: StudyDir, arm: str, seed: int, layers: list[str], task: str = "task", **settings: object) -> None:
    """Leaves a run of three layers, of which in each step those of the list learned."""
    run = RunDir(directory.path / Trial(task, arm, seed).place)
    begin(run, settings)
    write_json(run.estimate, read_json(run.estimate) | {"num_layers": 3})
    for step, listed in enumerate(layers, 1):
        append_row(run.metrics, metric_row(step, len(layers)) | {"trainable_layers": listed})


@pytest.fixture
def directory(tmp_path: Path) -> StudyDir:
    return StudyDir(tmp_path)


def test_each_arm_shows_the_layers_of_its_first_seed(directory: StudyDir) -> None:
    for arm, layers in LEARNED.items():
        learn(directory, arm, 7, layers, trainable__layers="last:1" if arm == "last" else "all")
        learn(directory, arm, 3, ["1"] * 9)
    found = strips_of(parse_study(TEXT, "s"), directory)
    assert [one.title for one in found] == ["all, seed 7", "last, seed 7", "moving, seed 7"]
    assert [one.strip.last_step for one in found] == [2, 2, 2]
    words = (
        "Adapters of rank 16 in layers last:1. Of 3 layers, 0 next to the embeddings, these learned: 2 in steps 1 to 2."
    )
    assert found[1].words == words
    assert found[2].words.endswith("these learned: 0 in step 1; 2 in step 2.")


def test_the_page_draws_them_next_to_each_other(directory: StudyDir) -> None:
    for arm, layers in LEARNED.items():
        learn(directory, arm, 7, layers)
    study = parse_study(TEXT, "s")
    page = render_study(StudyPage(study, [], compare_arms(study, [])), directory)
    drawn = re.findall(r'<path d="([^"]*)"/>', page)
    assert drawn == ["M0 2h2v1h-2zM0 1h2v1h-2zM0 0h2v1h-2z", "M0 0h2v1h-2z", "M0 2h1v1h-1zM1 0h1v1h-1z"]


def test_a_seed_that_has_not_begun_leaves_it_to_the_next(directory: StudyDir) -> None:
    learn(directory, "last", 3, ["2"])
    learn(directory, "all", 7, [])  # begun, no step yet
    assert [one.title for one in strips_of(parse_study(TEXT, "s"), directory)] == ["last, seed 3"]


def test_no_pictures_if_all_layers_of_every_arm_learned(directory: StudyDir) -> None:
    learn(directory, "all", 7, ["0-2"])
    learn(directory, "last", 7, ["0-2"])
    study = parse_study(TEXT, "s")
    assert strips_of(study, directory) == []
    assert 'id="layers"' not in render_study(StudyPage(study, [], compare_arms(study, [])), directory)


def test_tasks_are_named_if_there_are_several(directory: StudyDir) -> None:
    study = parse_study(TEXT + "[tasks.easy]\n[tasks.hard]\n", "s")
    learn(directory, "last", 7, ["2"], task="hard")
    assert [one.title for one in strips_of(study, directory)] == ["hard: last, seed 7"]
