"""The configuration in a run's config.json, for each of its readers."""

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.saved_config import recorded_config, saved_config, saved_layer, saved_resolved
from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from lowmem_rl.storage.run_reader import RunReader
from tests.run_maker import make_run

READERS = (recorded_config, saved_config, saved_layer, saved_resolved)


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(make_run(tmp_path / "run"))


def with_config(run: RunDir, changes: object) -> RunReader:
    written = read_json(run.config)
    config = written["config"] | changes if isinstance(changes, dict) else changes
    write_json(run.config, written | {"config": config})
    return RunReader(run, hint="As before.")


def test_readers_agree(run) -> None:
    reader = RunReader(run)
    resolved = saved_resolved(reader)
    assert recorded_config(reader) == saved_config(reader) == resolved.config
    assert (resolved.preset, set(resolved.origins.values())) == ("tiny-cpu", {str(run.config)})
    assert saved_layer(reader).values["grpo.group_size"] == resolved.config.grpo.group_size


def test_keys_of_another_version_are_left_out_but_not_of_a_run_that_continues(run) -> None:
    reader = with_config(run, {"a_later_section": {"x": 1}, "seed": 7})
    assert recorded_config(reader).seed == saved_config(reader).seed == 7
    with pytest.raises(RunDirError, match=r"config\.json is not a configuration"):
        saved_resolved(reader)


def test_rules_between_keys_are_for_runs_whose_model_is_loaded(run) -> None:
    logging = RunConfig().logging.model_dump() | {"checkpoint_every": 0}
    reader = with_config(run, {"health": {"action": "roll_back"}, "logging": logging})
    assert recorded_config(reader).health.action == "roll_back"
    with pytest.raises(RunDirError, match=r"config\.json is not a configuration"):
        saved_config(reader)


@pytest.mark.parametrize("config", [None, [], "x", {"grpo": 3}, {"grpo": {"steps": "many"}}, {"rewards": {"x": "y"}}])
@pytest.mark.parametrize("read", READERS[:2])
def test_what_is_not_a_configuration_is_named_with_the_readers_own_fix(run, config, read) -> None:
    with pytest.raises(RunDirError, match=r"config\.json is not a configuration") as error:
        read(with_config(run, config))
    assert error.value.hint == "As before."


@pytest.mark.parametrize("read", READERS)
def test_a_directory_without_a_run_is_refused(tmp_path, read) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunDirError, match="not a"):
            read(RunReader(RunDir(path)))
