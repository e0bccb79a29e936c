"""The hooks of a step: their moments, their signatures, their order."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lowmem_rl.training.reward_errors import RewardErrorCounter
from lowmem_rl.training.signals import StopSignal
from lowmem_rl.training.step import HOOK_ORDER, MOMENTS, Hooks, StepHooks


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("kind", HOOK_ORDER, ids=lambda kind: kind.__name__)
def test_a_hook_has_some_of_the_moments_with_their_parameters(kind: type) -> None:
    own = [moment for moment in MOMENTS if hasattr(kind, moment)]
    assert own
    for moment in own:
        assert parameters(getattr(kind, moment)) == parameters(getattr(StepHooks, moment)), moment


def test_all_hooks_together_know_all_moments() -> None:
    assert {moment for kind in HOOK_ORDER for moment in MOMENTS if hasattr(kind, moment)} == set(MOMENTS)
    assert all(hasattr(Hooks, moment) for moment in MOMENTS)


class Noted:
    """A hook that notes when it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.calls.append(f"{self.name} begins {name}")
        yield
        self.calls.append(f"{self.name} ends {name}")

    def choose_prompts(self, prompts: list[Any], step: int) -> list[Any]:
        return [*prompts, {"prompt": self.name}]

    def on_step(self, row: dict[str, Any], trainer: Any) -> None:
        row[self.name] = len(row)

    def state_dict(self) -> dict[str, Any]:
        return {self.name: 1}


def test_hooks_are_called_in_the_order_in_which_they_are_given() -> None:
    calls: list[str] = []
    hooks = Hooks((Noted("first", calls), Noted("second", calls)))
    with hooks.phase("rollout"):
        calls.append("sampling")
    row: dict[str, Any] = {}
    trainer: Any = None
    hooks.on_step(row, trainer)
    assert calls == ["first begins rollout", "second begins rollout", "sampling", "second ends rollout",
                     "first ends rollout"]  # fmt: skip
    assert [prompt["prompt"] for prompt in hooks.choose_prompts([], 1)] == ["first", "second"]
    assert row == {"first": 0, "second": 1}
    assert hooks.state_dict() == {"first": 1, "second": 1}


def test_an_order_against_the_contract_is_refused() -> None:
    errors, stop = RewardErrorCounter(0.1, print), StopSignal()
    assert Hooks((errors, object(), stop)).hooks[2] is stop
    with pytest.raises(ValueError, match="HOOK_ORDER"):
        Hooks((stop, errors))


def test_a_state_goes_back_to_the_hook_that_it_came_from() -> None:
    before, after = RewardErrorCounter(0.5, print), RewardErrorCounter(0.5, print)
    before.add([], 8)
    Hooks((after,)).load_state_dict({"recorder": {}, **Hooks((before,)).state_dict()})
    assert (after.scored, after.failed) == (8, 0)
