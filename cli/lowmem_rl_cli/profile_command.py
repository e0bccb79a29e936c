"""`lowmem-rl profile`: will it fit, and will it carry signal. The exit code is 0 for every answer."""

from pathlib import Path
from typing import TYPE_CHECKING

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.presets import default_preset
from lowmem_rl.config.rules import needs_16_bits
from lowmem_rl.engine.device import check_dtype, cpu_device, device_of
from lowmem_rl.models.hardware import Card, this_machine
from lowmem_rl.models.lookup import check_bits, check_length, load_shape
from lowmem_rl.planning.budget_input import Budget, asked_place, nearest_card, place_here, place_of
from lowmem_rl.planning.explain import advice_of, explain
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.planning.run_cost import RunCost, run_cost
from lowmem_rl.storage.cache import calibration_path
from lowmem_rl_cli import console
from lowmem_rl_cli.options import RunRequest

if TYPE_CHECKING:
    from lowmem_rl.memory.calibration import Calibration
    from lowmem_rl.planning.goal import Goal


def profile_command(
    request: RunRequest, *, card: str | None, vram: str | None, price: float | None, as_json: bool, verbose: bool
) -> None:
    """Plans the run and prints both verdicts with their basis. Raises `ConfigError` as `train` would."""
    rate = request.read_pass_rate()
    composed, place = _resolve(request, asked_place(card, vram))
    grpo, model = composed.config.grpo, composed.config.model
    shape = load_shape(model.name, model.revision)
    check_bits(shape, model.bits, needs_16_bits=needs_16_bits(composed.config.trainable))
    check_length(shape, grpo.max_prompt_tokens, grpo.max_completion_tokens)
    device = device_of(place.card, composed.config) if place.card else cpu_device(composed.config)
    check_dtype(composed.config, device)
    known = _calibration(place.card)
    planned = plan(composed.config, shape, place.card, place.budget_bytes, rate, known)
    cost = run_cost(planned.time, place.card, price)
    goal = _goal(planned, request.goal, cost)
    if as_json:
        about = {"cost": None if cost is None else cost.to_json()} | ({} if goal is None else {"goal": goal.to_json()})
        console.show_json(planned.to_json(advice_of(planned)) | about)
        return
    from lowmem_rl_cli.profile_view import render
    from lowmem_rl_cli.text_page import stdout_page

    page = stdout_page()
    console.show(render(planned, explain(planned), composed.preset, place.name, page, verbose=verbose, cost=cost))
    if goal is not None:
        console.show("\n".join(["", *page.fold(str(goal), "")]))


def _goal(planned: Plan, accuracy: float | None, cost: RunCost | None) -> "Goal | None":
    if accuracy is None:
        return None
    from lowmem_rl.planning.goal import goal_of

    return goal_of(planned, accuracy, None if cost is None else cost.price)


def _calibration(card: Card | None) -> "Calibration | None":
    """Returns what was measured on this kind of card; without a file the models of its rows are not built."""
    if not calibration_path().exists():
        return None
    from lowmem_rl.memory.calibration import calibration_for

    return calibration_for(card, "unsloth", console.say)


def _resolve(request: RunRequest, asked: Budget | None) -> tuple[ResolvedConfig, Budget]:
    """Returns the run and what it is planned for: the place asked for, else the preset's card, else this machine.

    The driver is asked only if neither is named: loading its library takes a tenth of half a second.
    """
    if request.preset is not None:
        composed = request.resolve()
        return composed, asked or place_of(composed.card)
    place = asked or place_here(this_machine())
    fallback = default_preset(nearest_card(place))
    composed = request.resolve(fallback)
    own_card = asked is None and composed.preset != fallback  # a config file that is a preset itself
    return composed, place_of(composed.card) if own_card else place


def score_command(path: Path, *, as_json: bool) -> None:
    """Prints the errors of the estimate against measured rows."""
    from lowmem_rl.memory.accuracy import score
    from lowmem_rl.memory.measured_rows import read_rows

    result = score(read_rows(path))
    if as_json:
        console.show_json(result.to_json())
        return
    from lowmem_rl_cli.score_view import render
    from lowmem_rl_cli.text_page import stdout_page

    console.show(render(result, stdout_page()))
