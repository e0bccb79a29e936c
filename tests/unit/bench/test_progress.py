"""What a long measurement says while it runs: arm, step, time left; and what a choice of its parts refuses."""

import pytest

from lowmem_rl.errors import ConfigError
from lowmem_rl_bench.step.choice import chosen_protocol
from lowmem_rl_bench.step.progress import Progress


def run(times: dict[str, float], stages: int, steps: int = 3) -> list[tuple[float, str]]:
    """Returns when it said what, if each arm's steps take as long as `times` says."""
    now, said = [0.0], []
    progress = Progress(lambda text: said.append((now[0], text)), list(times), steps, stages, clock=lambda: now[0])
    for stage in range(stages):
        progress.begin(f"stage {stage}")
        for number in range(steps):
            for arm, seconds in times.items():
                progress.before(arm, number)
                now[0] += seconds
                progress.after(arm, seconds)
        progress.done += 1
    return said


def test_a_line_names_arm_step_and_the_time_that_is_left() -> None:
    said = run({"ours": 20, "trl": 60}, stages=2)
    total = 2 * 3 * 80
    assert said[0] == (0, "stage 0: 3 steps of 2 arms in turns")
    assert said[1] == (20, "stage 0: trl, step 1 of 3")  # nothing is known of trl yet
    assert said[2] == (80, f"stage 0: ours, step 2 of 3, {(total - 80) / 60:.0f} min left")
    assert said[-1] == (total - 60, "stage 1: trl, step 3 of 3, 60 s left")


def test_short_steps_are_reported_from_time_to_time() -> None:
    said = run({"ours": 0.2, "trl": 0.6}, stages=1, steps=50)
    assert 5 <= len(said) <= 40 / 5 + 1


@pytest.mark.parametrize(
    ("choice", "match"),
    [
        ((["vllm"], [], []), "--arms vllm"),
        (([], ["fp16"], []), "--precision fp16"),
        (([], [], ["long"]), "--shapes long"),
    ],
)
def test_a_name_that_is_none_is_refused_with_those_that_are(choice, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        chosen_protocol(*choice, savings=(), rounds=1)
    assert caught.value.hint.startswith("Name ")


def test_a_choice_names_what_is_measured() -> None:
    some = chosen_protocol(["trl_continuous", "ours"], ["fp32"], ["skewed"], savings=(), rounds=2)
    assert [arm.name for arm in some.others] == ["trl_continuous"]
    assert (some.precisions, some.sets, some.rounds) == (("fp32",), ("skewed",), 2)
    assert next(arm.name for arm in chosen_protocol([], [], [], savings=(), rounds=1).others) == "trl"
    with pytest.raises(ConfigError, match="--saving"):
        chosen_protocol(["trl"], [], [], savings=["quantized"], rounds=1)
