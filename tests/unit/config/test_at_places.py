import pytest

from lowmem_rl.config.compose import ConfigLayer, resolve
from lowmem_rl.config.saved_config import saved_config
from lowmem_rl.errors import ConfigError
from lowmem_rl.storage.run_dir import RunDir, write_json
from lowmem_rl.storage.run_reader import RunReader


def reader(tmp_path) -> RunReader:
    """A run whose task has been written as it was typed, as earlier versions did."""
    config = resolve(preset="tiny-cpu", settings=["model.name=Qwen/Qwen2.5-1.5B"]).config.model_dump(mode="json")
    config["task"] |= {"name": "old/t.py:Task", "path": "data.jsonl"}
    run = RunDir(tmp_path / "run")
    write_json(run.config, {"preset": "tiny-cpu", "card": "cpu", "config": config, "origins": {}})
    return RunReader(run)


def test_an_earlier_run_is_read_from_where_it_was_started(tmp_path) -> None:
    task = saved_config(reader(tmp_path)).task
    assert (task.name, task.path) == (f"{tmp_path}/old/t.py:Task", f"{tmp_path}/data.jsonl")


def test_an_export_takes_new_places_and_no_other_setting(tmp_path) -> None:
    places = [ConfigLayer("--task", {"task.name": "/new/t.py:Task"}), ConfigLayer("--set", {"task.path": "/new/data"})]
    task = saved_config(reader(tmp_path), places).task
    assert (task.name, task.path) == ("/new/t.py:Task", "/new/data")
    for values in ({"grpo.steps": 9}, {"task.name": "/new/t.py:Other"}, {"model.name": "Qwen/Qwen2.5-7B"}):
        with pytest.raises(ConfigError, match="--set sets") as refused:
            saved_config(reader(tmp_path), [ConfigLayer("--set", values)])
        assert "new place of a file" in refused.value.hint
