"""How much of a gain needs the rewards: short runs of the same configuration with a random or a format reward.

A base model can improve under a random reward (arXiv 2506.10947), or by learning the format in which answers are
read. Each control is a run directory under `RUN/controls/`, evaluated on the same held-out items. RUN/controls.json:

    {"steps": int, "control_steps": int, "gain": DIFFERENCE, "strict_gain": DIFFERENCE,
     "controls": [{"name": "random" | "format", "path": "controls/NAME", "rewards": {NAME: weight}, "steps": int,
                   "gain": DIFFERENCE, "strict_gain": DIFFERENCE, "beyond": DIFFERENCE, "strict_beyond": DIFFERENCE}],
     "left_out": {"random" | "format": why},
     "words": [sentence]}

A DIFFERENCE is `{"gain", "interval": {"low", "high"}, "p_value", "won", "lost", "num_items"}`, shares in [-1, 1]: a
`gain` is after minus before training, a `beyond` is the run's last evaluation minus the control's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.resume_config import read_composed
from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.keys import REWARDS
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import resume_command
from lowmem_rl.engine.oom import free_memory
from lowmem_rl.engine.trained_model import config_of
from lowmem_rl.entrypoints.train import resume, run
from lowmem_rl.errors import Interrupted, LowMemError, RunDirError
from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import points
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, read_record
from lowmem_rl.rewards.random_control import RANDOM
from lowmem_rl.rewards.think_format import ANSWER_TAGS, TAG_COUNT, THINK_FORMAT
from lowmem_rl.stats import PairedDifference
from lowmem_rl.storage.run_dir import RunDir, write_json
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted
from lowmem_rl.training.final_report import write_final_report

_FORMATS = (THINK_FORMAT.name, ANSWER_TAGS.name, TAG_COUNT.name)
"""Rewards that read only the format."""
_SHARE, _MIN_STEPS = 4, 20
"""A control takes 1/4 of the run's steps, at least 20: enough to learn a format, and a step costs the same."""
_PAID_BY = {"random": "a random reward", "format": "the format alone"}


@dataclass(frozen=True, slots=True)
class ControlResult:
    """A control's gain, and how far the run is beyond it; both are paired on the same items."""

    name: str
    rewards: Mapping[str, float]
    steps: int
    gain: PairedDifference
    strict_gain: PairedDifference
    beyond: PairedDifference
    strict_beyond: PairedDifference


@dataclass(frozen=True, slots=True)
class Controls:
    """The gain of a run and of its controls."""

    steps: int
    control_steps: int
    gain: PairedDifference
    strict_gain: PairedDifference
    controls: tuple[ControlResult, ...]
    left_out: Mapping[str, str]

    @property
    def words(self) -> list[str]:
        """What the controls explain, in sentences."""
        return list(_sentences(self))

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data, in the form above."""
        controls = [asdict(control) | {"path": f"controls/{control.name}"} for control in self.controls]
        return asdict(self) | {"controls": controls, "words": self.words}


def run_controls(
    composed: ResolvedConfig, run_path: Path, listen: Listener = lambda event: None, *, force: bool = False
) -> Controls:
    """Trains the controls of a finished run and writes controls.json. A control that fails is left out and reported.

    Raises `Interrupted` on Ctrl-C, `RunDirError` if evaluations are missing. The run itself does not change.
    """
    main = RunDir(run_path)
    config = config_of(main)
    steps = control_steps(config)
    paid, left_out = rewards_of_controls(config)
    for name, rewards in paid.items():
        free_memory()  # of the previous run
        try:
            listen(PhaseStarted(f"control: {steps} steps paid by {_PAID_BY[name]}"))
            _train(_control_config(composed, config, rewards, steps), main.control(name), listen, force=force)
        except (Interrupted, KeyboardInterrupt) as error:
            hint = f"The controls continue with: {resume_command(run_path, config)} --controls"
            raise Interrupted("Stopped in a control; the run itself was finished.", hint=hint) from error
        except LowMemError as error:
            left_out |= {name: str(error)}
            listen(Note(f"control {name!r} is left out: {error}"))
    controls = compare_controls(run_path, {name: paid[name] for name in paid if name not in left_out}, left_out)
    write_json(main.controls, controls.to_json())
    write_final_report(main, lambda text: None)  # only for the page; the run has reported its findings
    return controls


def _train(composed: ResolvedConfig, out: Path, listen: Listener, *, force: bool) -> None:
    """Trains a control, or resumes one that was stopped; a finished one stays as it is."""
    if not RunDir(out).config.exists():
        run(composed, out, listen, force=force)
        return
    if read_composed(RunDir(out)).config != composed.config:  # not ours to resume: it may name code
        raise RunDirError(f"{out} holds another run.", hint="Remove it and repeat the command.")
    resume(composed, out, listen, force=force)


def control_steps(config: RunConfig) -> int:
    """Returns how many steps a control of a run takes."""
    return min(config.grpo.steps, max(_MIN_STEPS, config.grpo.steps // _SHARE))


def rewards_of_controls(config: RunConfig) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Returns the weights of each control's rewards by its name, and why a control is left out."""
    used = {name: weight for name, weight in config.rewards.items() if weight != 0}
    formats = {name: weight for name, weight in used.items() if name in _FORMATS}
    left_out = {}
    if not used.keys() - {RANDOM.name}:
        left_out["random"] = "the run itself is paid by chance"
    if not formats:
        left_out["format"] = "the run is not paid for a format"
    elif formats.keys() == used.keys():
        left_out["format"] = "the run is paid for nothing else"
    paid = {"random": {RANDOM.name: 1.0}, "format": formats}
    return {name: rewards for name, rewards in paid.items() if name not in left_out}, left_out


def compare_controls(run_path: Path, paid: Mapping[str, Mapping[str, float]], left_out: Mapping[str, str]) -> Controls:
    """Compares a run with its finished controls. Raises `RunDirError` if evaluations or their items are missing."""
    main = read_record(run_path)
    found = {name: read_record(RunDir(run_path).control(name)) for name in paid}
    controls = tuple(
        ControlResult(
            name,
            dict(paid[name]),
            record.last_step,
            gain=_paired(record.before, record.latest, LENIENT, record.path),
            strict_gain=_paired(record.before, record.latest, STRICT, record.path),
            beyond=_paired(record.latest, main.latest, LENIENT, main.path),
            strict_beyond=_paired(record.latest, main.latest, STRICT, main.path),
        )
        for name, record in found.items()
    )
    steps = max((record.last_step for record in found.values()), default=0)
    gain, strict_gain = (_paired(main.before, main.latest, grader, main.path) for grader in (LENIENT, STRICT))
    return Controls(main.last_step, steps, gain, strict_gain, controls, dict(left_out))


def _control_config(
    composed: ResolvedConfig, config: RunConfig, rewards: Mapping[str, float], steps: int
) -> ResolvedConfig:
    """Returns a run's configuration with other rewards and fewer steps, evaluated only before and after."""
    values = config.model_dump()
    values[REWARDS] = dict(rewards)
    values["grpo"]["steps"] = steps
    values["grpo"]["steps_per_rollout"] = min(steps, config.grpo.steps_per_rollout)
    values["eval"]["every"] = 0
    changed = {"grpo.steps", "grpo.steps_per_rollout", "eval.every", *(f"{REWARDS}.{name}" for name in rewards)}
    kept = {key: origin for key, origin in composed.origins.items() if not key.startswith(f"{REWARDS}.")}
    return replace(
        composed, config=RunConfig.model_validate(values), origins=kept | dict.fromkeys(changed, "--controls")
    )


def _paired(earlier: EvalRecord | None, later: EvalRecord | None, grader: str, path: Path) -> PairedDifference:
    if earlier and later and (found := paired_difference(earlier, later, grader)):
        return found
    raise RunDirError(f"{path} has no items that were evaluated both times.", hint="Controls need both evaluations.")


def _sentences(found: Controls) -> Iterator[str]:
    if found.controls:
        gains = "; ".join(map(_gain_text, found.controls))
        yield f"The run gained {points(found.gain)} in {found.steps} steps. In {found.control_steps} steps, {gains}."
        yield _beyond_text(max(found.controls, key=lambda control: control.gain.gain))
        if found.control_steps < found.steps:
            yield "It is not known what the controls would gain in as many steps as the run."
    for name, why in found.left_out.items():
        yield f"No control with {_PAID_BY[name]}: {why.rstrip('.')}."


def _gain_text(control: ControlResult) -> str:
    by = _PAID_BY[control.name]
    if control.gain.is_distinguishable:
        return f"{points(control.gain)} came also with {by}"
    return f"{by} made no measurable difference ({points(control.gain)})"


def _beyond_text(control: ControlResult) -> str:
    beyond, by = control.beyond, _PAID_BY[control.name]
    if not beyond.is_distinguishable:
        return f"The run is not measurably beyond {by}: {points(beyond)}. Its gain may not need correct answers."
    if beyond.gain < 0:
        return f"The run ends {points(beyond)} below {by}."
    return f"Beyond {by} the run has {points(beyond)}: that part of the gain needs the rewards it was paid."
