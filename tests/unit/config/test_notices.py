import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.notices import notices

STEPPED = "optimizer.schedule=multistep"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (["optimizer.warmup_steps=20"], "ends within its warm-up of 20"),
        (["optimizer.warmup_steps=300", "optimizer.schedule=cosine"], "ends within its warm-up of 300"),
        ([STEPPED, "optimizer.milestones=[10, 20]"], "ends before the milestones 20 "),
        ([STEPPED, "optimizer.milestones=[200, 400]"], "ends before the milestones 200, 400 "),
    ],
)
def test_a_schedule_beyond_the_last_step_is_noted(settings, shown) -> None:
    (found,) = notices(resolve(preset="tiny-cpu", settings=["grpo.steps=20", *settings]).config)
    assert f"the run of 20 steps {shown}" in found


@pytest.mark.parametrize("settings", [[], ["optimizer.warmup_steps=19"], [STEPPED, "optimizer.milestones=[1, 19]"]])
def test_a_schedule_within_the_run_is_not(settings) -> None:
    assert not [*notices(resolve(preset="tiny-cpu", settings=["grpo.steps=20", *settings]).config)]


@pytest.mark.parametrize(("rate", "noted"), [(5e-4, True), (0.3, False)])
def test_sgd_at_a_rate_of_adamw_is_noted(rate: float, noted: bool) -> None:
    settings = ["grpo.steps=20", "optimizer.name=sgd", f"optimizer.learning_rate={rate}"]
    found = [*notices(resolve(preset="tiny-cpu", settings=settings).config)]
    assert [("at most 0.01 in 20 steps" in text) for text in found] == [True] * noted


SLIMFIT = "trainable.schedule=slimfit"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ([SLIMFIT, "trainable.every=4"], "5 periods let 50% of the matrices learn, 10% each"),
        ([SLIMFIT, "trainable.every=1"], "each step of a matrix may be its optimizer's first"),
    ],
)
def test_what_slimfit_leaves_out_is_noted(settings, shown) -> None:
    (found,) = notices(resolve(preset="tiny-cpu", settings=["grpo.steps=20", *settings]).config)
    assert shown in found


@pytest.mark.parametrize(
    "settings", [[SLIMFIT, "trainable.every=2"], [SLIMFIT, "trainable.every=1", "trainable.state=keep"]]
)
def test_a_slimfit_that_visits_all_and_keeps_states_is_not(settings) -> None:
    assert not [*notices(resolve(preset="tiny-cpu", settings=["grpo.steps=20", *settings]).config)]


def test_layers_that_never_change_and_the_rate_of_whole_weights_are_noted() -> None:
    settings = ["grpo.steps=20", "trainable.method=full", "trainable.schedule=gradual_freezing"]
    rate, late = notices(resolve(preset="tiny-cpu", settings=settings).config)
    assert "ends within the first 20: the layers that learn never change" in late
    assert "optimizer.learning_rate = 0.0005" in rate
    (rate,) = notices(resolve(preset="tiny-cpu", settings=[*settings, "trainable.every=19"]).config)
