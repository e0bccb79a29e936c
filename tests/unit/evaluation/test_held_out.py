"""What is said if nothing is left to evaluate on."""

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.errors import TaskError
from lowmem_rl.evaluation.eval_set import held_out_examples


class NoRows:
    def examples(self, selection):
        return iter(())


@pytest.mark.parametrize(
    ("config", "what", "fix"),
    [
        (TaskConfig(name="table", path="sums.csv"), "Task 'table' on 'sums.csv' has no", "raise task.eval_share"),
        (TaskConfig(name="arithmetic"), "Task 'arithmetic' has no", "Choose other levels"),
    ],
)
def test_a_task_without_held_out_examples_names_its_file_and_the_fix(config: TaskConfig, what: str, fix: str) -> None:
    with pytest.raises(TaskError, match=what) as caught:
        held_out_examples(NoRows(), config, 5)
    assert fix in (caught.value.hint or "")
