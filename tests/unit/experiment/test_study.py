from dataclasses import replace
from pathlib import Path

import pytest

from lowmem_rl.errors import ConfigError
from lowmem_rl.experiment.study import parse_study, read_study

STUDY = """
[study]
name = "layers"
preset = "tiny-cpu"
seeds = [0, 1]
baseline = "all"
"""
ARMS = """
[arms.all]
[arms.last]
"trainable.layers" = "last:1"
"""
TUNE = "[tune]\nseeds = [100]\n"
HUGE = "".join(f"x{number} = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n" for number in range(10))


def test_a_study_has_its_arms_in_the_order_of_the_file() -> None:
    study = parse_study(STUDY + ARMS, "s.toml")
    assert [arm.name for arm in study.arms] == ["all", "last"]
    assert study.arm("last").settings == {"trainable.layers": "last:1"}
    assert list(study.tasks) == ["task"]


def test_a_dotted_key_needs_no_quotes() -> None:
    assert parse_study(STUDY + ARMS.replace('"trainable.layers"', "trainable.layers"), "s") == replace(
        parse_study(STUDY + ARMS, "s"), text=STUDY + ARMS.replace('"trainable.layers"', "trainable.layers")
    )


def test_a_grid_makes_an_arm_of_each_combination_over_its_base() -> None:
    grid = '[grid.one]\nbase = "last"\n"trainable.layers" = ["0", "1"]\n"adapter.rank" = [4, 8]\n'
    study = parse_study(STUDY + ARMS + grid, "s")
    assert [arm.name for arm in study.arms[2:]] == ["one-0-4", "one-0-8", "one-1-4", "one-1-8"]
    assert study.arm("one-1-4").settings == {"trainable.layers": "1", "adapter.rank": 4}


def test_every_arm_tries_the_same_settings_unless_it_has_as_many_of_its_own() -> None:
    tune = '[tune]\nseeds = [100]\n"optimizer.learning_rate" = [1e-3, 1e-4]\n'
    own = '[arms.last.tune]\n"optimizer.learning_rate" = [1e-2, 1e-5]\n'
    study = parse_study(STUDY + tune + ARMS + own, "s")
    assert study.arm("all").choices == ({"optimizer.learning_rate": 1e-3}, {"optimizer.learning_rate": 1e-4})
    assert study.arm("last").choices == ({"optimizer.learning_rate": 1e-2}, {"optimizer.learning_rate": 1e-5})


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        (STUDY.replace("seeds", "seedz") + ARMS, "no key study.seedz", "seeds"),
        (STUDY.replace("[0, 1]", "[0, 0]") + ARMS, "a seed is in it twice", "studies/"),
        (STUDY.replace("[0, 1]", "[-1]") + ARMS, "study.seeds.0 = -1", "studies/"),
        (STUDY.replace('seeds = [0, 1]\n', "") + ARMS, "study.seeds", "Add study.seeds"),
        (STUDY.replace('"all"', '"al"') + ARMS, "baseline 'al' is no arm", "all"),
        (STUDY + "[arms.all]\n", "it has 1 arms", "Add [arms.NAME]"),
        (STUDY + ARMS + '[arms."../x"]\n', "'../x' is not a name", "folder"),
        (STUDY + ARMS + "[arms.LAST]\n", "is there twice", "Rename"),
        (STUDY + ARMS + '[grid.g]\nbase = "lasst"\n"adapter.rank" = [4]\n', "'lasst', which is no arm", "last"),
        (STUDY + ARMS + '[grid.g]\n"adapter.rank" = 4\n', "is not a list of values", "[..., ...]"),
        (STUDY + ARMS + "[arms.last.tune]\nx = [1]\n", "has no [tune]", "Add [tune]"),
        (STUDY + ARMS + "[run]\njobs = 0\n", "run.jobs = 0", "studies/"),
        (STUDY + ARMS + '[run]\non = "here"\n', "run.on = 'here'", "studies/"),
        (STUDY + ARMS + "[run.slurm]\ngpus = 1\n", "no key run.slurm.gpus", "gpus_per_node"),
        (STUDY + ARMS + "[study\n", "s.toml: ", "in quotes"),
        (STUDY.replace("[0, 1]", f"[{'9' * 5000}]") + ARMS, "thousands of digits", "in quotes"),
        (STUDY.replace("[0, 1]", "[true, false]") + ARMS, "study.seeds.0 = True", "studies/"),
        (STUDY.replace("[0, 1]", str(list(range(201)))) + ARMS, "at most 200", "studies/"),
        (STUDY.replace('"layers"', '"a\\nb"') + ARMS, "no control characters", "studies/"),
        (STUDY + ARMS + '[arms."a\\nb".tune]\n', r"'a\nb' is not a name", "folder"),
        (STUDY + ARMS + '[grid."a\\nb"]\nx = 1\n', r"'a\nb' is not a name", "folder"),
        (STUDY + ARMS + '[grid.g]\n"adapter.rank" = [-4, 4]\n', "g-4 is there twice", "value of the grid"),
        (STUDY + ARMS + "[grid.g]\n" + HUGE, "[grid.g]: it makes 10000000000 settings, more than 200", "Shorten"),
        (STUDY + TUNE + HUGE + ARMS, "[tune]: it makes 10000000000 settings, more than 100", "Shorten"),
        (STUDY + TUNE + "x = [1]\n" + ARMS + "tune = 3\n", "arms.last.tune = 3 is not a table", "[arms.last.tune]"),
        (STUDY + TUNE + ARMS, "[tune] names nothing to choose from", "list of values"),
        (STUDY + TUNE.replace("100", "1") + "x = [1]\n" + ARMS, "seed 1 is in [study] seeds and in", "of its own"),
        (STUDY + TUNE + '"trainable.layers" = ["all"]\n' + ARMS, "last sets trainable.layers, which", "out of the arm"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_place_and_the_fix(text: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_study(text, "s.toml")
    assert what in str(error.value)
    assert "\n" not in str(error.value)
    assert hint in error.value.hint


def test_a_folder_does_not_hide_the_shipped_study_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("which-layers").mkdir()
    assert read_study(Path("which-layers")).name == "which-layers"


def test_unequal_tuning_is_refused() -> None:
    tune = '[tune]\nseeds = [100]\n"optimizer.learning_rate" = [1e-3, 1e-4]\n'
    own = '[arms.last.tune]\n"optimizer.learning_rate" = [1e-2, 1e-4, 1e-5]\n'
    with pytest.raises(ConfigError, match="unequal numbers of settings: all 2, last 3"):
        parse_study(STUDY + tune + ARMS + own, "s")
