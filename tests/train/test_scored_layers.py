"""Real runs in which measurements choose what learns: autofreeze, slimfit; and the rates of freezeout."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.peft_model import layer_of
from lowmem_rl.entrypoints.train import run
from lowmem_rl.health.history import read_history
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json
from lowmem_rl.trainable.autofreeze import changes, still_learning
from lowmem_rl.trainable.freezeout import rate, stops
from lowmem_rl.trainable.slimfit import EPSILON
from lowmem_rl.training.slimfit_units import unit_of
from lowmem_rl_bench.verify_resume import differences

DEPTH, UNITS = 3, 21
SMALL = (
    *("eval.examples=8", "eval.every=0", "grpo.prompts_per_step=4", "memory.micro_batch=16", "trainable.every=1"),
    *("logging.checkpoint_every=1", "logging.keep_checkpoints=9"),
)
GLITCH = """
from lowmem_rl.rewards.boxed import score_boxed

scored = 0


def glitch(completion, example):
    global scored
    scored += "What is" in example.question
    return 3e38 if 112 <= scored < 116 else score_boxed(completion, example)
"""
"""The fourth of steps of 32 completions is spoiled."""


def with_small(*settings: str) -> list[str]:
    """Returns the settings, and those of `SMALL` that they do not set."""
    keys = {setting.partition("=")[0] for setting in settings}
    return [*(setting for setting in SMALL if setting.partition("=")[0] not in keys), *settings]


def trained(out: Path, *settings: str) -> RunDir:
    run(resolve(preset="tiny-cpu", settings=with_small(*settings)), out)
    return RunDir(out)


def weights_after(run_dir: RunDir, step: int) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(run_dir.checkpoint(step) / "adapter_model.safetensors")
    return found


def moved(run_dir: RunDir, before: int) -> set[str]:
    import torch

    old, new = weights_after(run_dir, before), weights_after(run_dir, before + 1)
    return {name for name in old if not torch.equal(old[name], new[name])}


def state_of(run_dir: RunDir, step: int, name: str) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(run_dir.checkpoint(step) / f"{name}.pt", weights_only=True)
    return found


@pytest.fixture
def raw_gradients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Returns a list that gets the gradients of each step, copied before they are clipped."""
    from lowmem_rl.trl_adapter.update import UpdateMixin

    found: list[dict[str, Any]] = []
    clip = UpdateMixin._clip_grad_norm

    def spy(self: Any, model: Any) -> Any:
        named = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        found.append({name: gradient.clone() for name, gradient in named.items()})
        return clip(self, model)

    monkeypatch.setattr(UpdateMixin, "_clip_grad_norm", spy)
    return found


def norms_of(steps: list[dict[str, Any]], layers: tuple[int, ...]) -> dict[int, float]:
    """Returns Delta of each layer, from the definition, in float64."""
    names = {name for step in steps for name in step}
    sums = {name: sum(step[name].double() for step in steps if name in step) for name in names}
    return {layer: sum(float(s.abs().sum()) for name, s in sums.items() if layer_of(name) == layer) for layer in layers}


def test_autofreeze_stops_layers_by_gradients_as_they_are_before_clipping(
    tmp_path: Path, raw_gradients: list[dict[str, Any]]
) -> None:
    steps, every = 8, 2
    settings = ("trainable.schedule=autofreeze", f"trainable.every={every}", f"grpo.steps={steps}")
    run_dir = trained(tmp_path / "run", *settings, "optimizer.max_grad_norm=1e-3")
    assert all(row["grad_norm"] > 0.01 for row in read_rows(run_dir.metrics))  # each one is clipped
    rows = {row["step"]: row for row in read_rows(run_dir.trainable)}
    layers, before = tuple(range(DEPTH)), norms_of(raw_gradients[:every], tuple(range(DEPTH)))
    expected = {1: list(layers)}
    for first in range(every, steps - every, every):
        if len(layers) == 1:
            break
        now = norms_of(raw_gradients[first : first + every], layers)
        eta = changes(before, now)
        assert rows[first + every + 1]["scores"]["eta"] == pytest.approx({str(k): v for k, v in eta.items()}, abs=1e-5)
        before, layers = now, still_learning(eta, 50)
        expected[first + every + 1] = list(layers)
    assert {step: row["layers"] for step, row in rows.items()} == expected
    assert len(set(map(tuple, expected.values()))) > 1  # it has risen
    for step, row in enumerate(read_rows(run_dir.metrics), 1):
        learning = expected[max(change for change in expected if change <= step)]
        assert row["trainable_layers"] in ("0-2", "1-2", "2")
        if step > 1:
            assert {layer_of(name) for name in moved(run_dir, step - 1)} == set(learning)


def test_autofreeze_keeps_the_sums_of_a_period_that_is_not_over(
    tmp_path: Path, raw_gradients: list[dict[str, Any]]
) -> None:
    import torch

    settings = ("trainable.schedule=autofreeze", "trainable.every=2", "grpo.steps=6", "optimizer.max_grad_norm=1e-3")
    run_dir = trained(tmp_path / "run", *settings)
    found = [total for sums in state_of(run_dir, 1, "autofreeze")["sums"].values() for total in sums]
    assert len(found) == len(raw_gradients[0]) == 2 * UNITS
    for total, gradient in zip(found, raw_gradients[0].values(), strict=True):
        assert torch.allclose(total, gradient, rtol=1e-6, atol=0)
    assert not any(total.any() for sums in state_of(run_dir, 2, "autofreeze")["sums"].values() for total in sums)


def test_autofreeze_sums_whole_weights_in_bfloat16(tmp_path: Path, raw_gradients: list[dict[str, Any]]) -> None:
    import torch

    settings = ("trainable.schedule=autofreeze", "trainable.every=2", "grpo.steps=6", "trainable.method=full")
    run_dir = trained(tmp_path / "run", *settings, "model.bits=16", "optimizer.learning_rate=1e-4")
    found = [total for sums in state_of(run_dir, 1, "autofreeze")["sums"].values() for total in sums]
    assert {total.dtype for total in found} == {torch.bfloat16}
    for total, gradient in zip(found, raw_gradients[0].values(), strict=True):
        assert torch.allclose(total.float(), gradient, rtol=2**-8, atol=1e-7)
    assert [row["step"] for row in read_rows(run_dir.trainable) if "scores" in row] == [5]


def test_a_period_without_an_informative_group_is_skipped(cli_here: Any, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def same(completion, example):\n    return 1.0\n")
    settings = ("trainable.schedule=autofreeze", "grpo.beta=0.04", "rewards.boxed_answer=0", "rewards.think_format=0")
    given = [f"--set={setting}" for setting in with_small(*settings)]
    options = (f"--reward={tmp_path / 'rewards.py'}:same=1.0", "--steps=3", "--force", f"--out={tmp_path / 'run'}")
    done = cli_here("train", "--preset=tiny-cpu", *given, *options)
    assert done.code == 0
    rows = list(read_rows(RunDir(tmp_path / "run").trainable))
    assert [(row["step"], row["layers"], "skipped" in row) for row in rows] == [
        (1, [0, 1, 2], False),
        (2, [0, 1, 2], True),
        (3, [0, 1, 2], True),
    ]
    assert "the layers stay as they are: no group of the period was informative" in done.stderr


def test_slimfit_lets_each_matrix_learn_once_and_then_those_that_move_most(tmp_path: Path) -> None:
    settings = ("trainable.schedule=slimfit", "trainable.freeze_rate=0.6", "trainable.state=keep", "grpo.steps=6")
    run_dir = trained(tmp_path / "run", *settings, "optimizer.warmup_steps=1")
    rows = list(read_rows(run_dir.trainable))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    units = [row["units"] for row in rows]
    assert [len(found) for found in units] == [8] * 6
    assert units[0] == units[1]  # the first step of a warm-up moves nothing, and so measures nothing
    assert len({unit for found in units[1:3] for unit in found}) == 16
    assert len({unit for found in units[1:4] for unit in found}) == UNITS
    measured: dict[str, float] = {}
    for step in range(2, 6):
        before, after = weights_after(run_dir, step - 1), weights_after(run_dir, step)
        assert {unit_of(name) for name in moved(run_dir, step - 1)} == set(units[step - 1])
        expected = {unit: distance_of(unit, before, after) for unit in units[step - 1]}
        assert rows[step]["scores"]["distance"] == pytest.approx(expected, rel=1e-4)
        measured |= rows[step]["scores"]["distance"]
    assert set(units[5]) == set(sorted(measured, key=lambda unit: measured[unit])[-8:])


def distance_of(unit: str, before: dict[str, Any], after: dict[str, Any]) -> float:
    """Returns how far a step has moved a matrix's two factors, over their size, from saved weights."""
    names = [name for name in before if unit_of(name) == unit]
    way = sum(float((after[name] - before[name]).abs().sum()) for name in names)
    return way / sum(float(before[name].abs().sum()) + EPSILON * before[name].numel() for name in names)


def test_freezeout_slows_each_layer_down_to_its_stop(tmp_path: Path) -> None:
    import torch

    steps = 6
    run_dir = trained(tmp_path / "run", "trainable.schedule=freezeout", f"grpo.steps={steps}",
                      "optimizer.schedule=constant", "optimizer.warmup_steps=0", "trainable.every=20")  # fmt: skip
    stop = stops(DEPTH, steps, 1)
    assert stop == (3, 5, 6)
    for step in range(1, steps):
        groups = torch.load(run_dir.checkpoint(step) / "optimizer.pt", weights_only=True)["param_groups"]
        rates = {group["layer"]: group["lr"] / group["initial_lr"] for group in groups}
        assert rates == pytest.approx({layer: rate(step, stop[layer]) for layer in range(DEPTH)}, abs=1e-9)
        assert {layer_of(name) for name in moved(run_dir, step)} == {
            layer for layer in range(DEPTH) if stop[layer] > step
        }
    logged = [row["learning_rate"] for row in read_rows(run_dir.metrics)]
    assert [one / logged[0] for one in logged] == pytest.approx([rate(done, steps) for done in range(steps)], abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        ("trainable.schedule=autofreeze", "trainable.every=2"),
        ("trainable.schedule=slimfit", "trainable.state=keep"),
        ("trainable.schedule=freezeout", "trainable.every=20"),
    ],
    ids=lambda settings: settings[0],
)
def test_a_killed_run_ends_like_one_that_was_not(cli_here: Any, tmp_path: Path, settings: tuple[str, ...]) -> None:
    whole = trained(tmp_path / "whole", *settings, "grpo.steps=6", "optimizer.name=adamw_8bit")
    killed = RunDir(tmp_path / "killed")
    shutil.copytree(whole.path, killed.path)
    for step in range(4, 7):
        shutil.rmtree(killed.checkpoint(step))
    write_json(killed.evaluations, read_json(killed.evaluations) | {"after": None, "comparison": None})
    assert cli_here("train", "--resume", f"--out={killed.path}").code == 0
    assert list(differences(whole, killed)) == []
    assert list(read_rows(killed.trainable)) == list(read_rows(whole.trainable))


def test_a_rollback_takes_back_what_its_checkpoint_holds(cli_here: Any, tmp_path: Path) -> None:
    import torch

    (tmp_path / "rewards.py").write_text(GLITCH)
    given = [f"--set={setting}" for setting in with_small("trainable.schedule=autofreeze", "trainable.every=2")]
    options = ("--set=health.action=roll_back", "--steps=8", "--force", f"--out={tmp_path / 'run'}")
    reward = f"--reward={tmp_path / 'rewards.py'}:glitch=10.0"
    assert cli_here("train", "--preset=tiny-cpu", *given, reward, *options).code == 0
    run_dir = RunDir(tmp_path / "run")
    (undone,) = read_rows(run_dir.rollbacks)
    assert (undone["step"], undone["to"]) == (4, 3)
    healthy, again = (state_of(run_dir, step, "autofreeze") for step in (3, 4))
    assert healthy["steps"] == again["steps"] == 1  # in the middle of a period
    assert healthy["norms"] == again["norms"]
    for layer, sums in healthy["sums"].items():
        for one, other in zip(sums, again["sums"][layer], strict=True):
            assert one.any()
            assert torch.equal(one, other)
    assert [row["step"] for row in read_rows(run_dir.trainable)][:2] == [1, 6]  # the period ends a step later


def test_windows_skip_the_first_two_rounds_after_a_change(tmp_path: Path) -> None:
    run_dir = trained(tmp_path / "run", "trainable.schedule=gradual_unfreezing", "trainable.every=4", "grpo.steps=12")
    history = read_history(run_dir)
    changed = [b["step"] for a, b in pairwise(history.rows) if a["trainable_layers"] != b["trainable_layers"]]
    assert changed == [5, 9]
    assert [row["step"] for row in history.settled.rows] == [1, 2, 3, 4, 7, 8, 11, 12]
