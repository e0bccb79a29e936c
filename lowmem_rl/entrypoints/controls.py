"""How much of a gain needs the reward: short runs of the same configuration that are paid by chance, or for the form.

A base model can gain under a random reward (arXiv 2506.10947), and by learning the form in which answers are read.
Each control is a run directory of its own under `RUN/controls/`, evaluated on the same held-out items. `controls.json`
in RUN holds:

    {"steps": int, "control_steps": int, "gain": DIFFERENCE, "strict_gain": DIFFERENCE,
     "controls": [{"name": "random" | "format", "path": "controls/NAME", "rewards": {NAME: weight}, "steps": int,
                   "gain": DIFFERENCE, "strict_gain": DIFFERENCE, "beyond": DIFFERENCE, "strict_beyond": DIFFERENCE}],
     "left_out": {"random" | "format": why},
     "words": [sentence]}

A DIFFERENCE is `{"gain", "interval": {"low", "high"}, "p_value", "won", "lost", "num_items"}`, shares in [-1, 1]: of a
`gain`, after training less before it; of a `beyond`, the run's last evaluation less the control's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.resume_config import read_composed
from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.keys import REWARDS
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.oom import free_memory
from lowmem_rl.engine.trained_model import config_of
from lowmem_rl.entrypoints.train import resume, run
from lowmem_rl.errors import Interrupted, LowMemError, RunDirError
from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import points
from lowmem_rl.reports.run_record import LENIENT, STRICT, RunRecord, read_record
from lowmem_rl.rewards.random_control import RANDOM
from lowmem_rl.rewards.think_format import ANSWER_TAGS, TAG_COUNT, THINK_FORMAT
from lowmem_rl.stats import PairedDifference
from lowmem_rl.storage.run_dir import RunDir, write_json
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted
from lowmem_rl.training.final_report import write_final_report

FORMATS = (THINK_FORMAT.name, ANSWER_TAGS.name, TAG_COUNT.name)
"""Rewards that read the form alone."""
SHARE, LEAST_STEPS = 4, 20
"""A control takes one step of so many, and at least these: a form is learnt within them, and a step costs the same."""
PAID_BY = {"random": "a random reward", "format": "the format alone"}


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What a control gained, and how far the run is beyond it; both are paired on the same items."""

    name: str
    rewards: Mapping[str, float]
    steps: int
    gain: PairedDifference
    strict_gain: PairedDifference
    beyond: PairedDifference
    strict_beyond: PairedDifference


@dataclass(frozen=True, slots=True)
class Controls:
    """A run's own gain beside that of its controls."""

    steps: int
    control_steps: int
    gain: PairedDifference
    strict_gain: PairedDifference
    controls: tuple[ControlResult, ...]
    left_out: Mapping[str, str]

    @property
    def words(self) -> list[str]:
        """What the controls explain, in sentences."""
        return list(_words(self))

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data, as the module says."""
        controls = [asdict(control) | {"path": f"controls/{control.name}"} for control in self.controls]
        return asdict(self) | {"controls": controls, "words": self.words}


def run_controls(
    composed: ResolvedConfig, run_path: Path, listen: Listener = lambda event: None, *, force: bool = False
) -> Controls:
    """Trains the controls of a finished run and writes controls.json; what fails of them is left out, and said.

    Raises `Interrupted` on Ctrl-C; the run itself is whole before the first control begins.
    """
    main = RunDir(run_path)
    config = config_of(main)
    steps = control_steps(config)
    paid, left_out = rewards_of_controls(config)
    for name, rewards in paid.items():
        free_memory()  # what the run before has left
        try:
            listen(PhaseStarted(f"control: {steps} steps paid by {PAID_BY[name]}"))
            _train(_control(composed, config, rewards, steps), main.control(name), listen, force=force)
        except (Interrupted, KeyboardInterrupt) as error:
            cure = f"The controls go on with: lowmem-rl train --resume --controls --out {run_path}"
            raise Interrupted("Stopped in a control; the run itself was finished.", hint=cure) from error
        except LowMemError as error:
            left_out |= {name: str(error)}
            listen(Note(f"control {name!r} is left out: {error}"))
    told = weigh(run_path, {name: paid[name] for name in paid if name not in left_out}, left_out)
    write_json(main.controls, told.to_json())
    write_final_report(main, lambda text: None)  # the page is written again; what ails the run was told
    return told


def _train(composed: ResolvedConfig, out: Path, listen: Listener, *, force: bool) -> None:
    """Trains a control, or goes on with one that was stopped; one that is finished stays as it is."""
    if not RunDir(out).config.exists():
        run(composed, out, listen, force=force)
        return
    if read_composed(RunDir(out)).config != composed.config:  # never ours to go on with: it may name code
        raise RunDirError(f"{out} holds another run.", hint="Remove it, and repeat the command.")
    resume(composed, out, listen, force=force)


def control_steps(config: RunConfig) -> int:
    """Returns how many steps a control of a run takes."""
    return min(config.grpo.steps, max(LEAST_STEPS, config.grpo.steps // SHARE))


def rewards_of_controls(config: RunConfig) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Returns the weights of each control's rewards by its name, and why a control is left out."""
    used = {name: weight for name, weight in config.rewards.items() if weight != 0}
    form = {name: weight for name, weight in used.items() if name in FORMATS}
    paid = {"random": {RANDOM.name: 1.0}, "format": form}
    why = {
        "random": {} if set(used) - {RANDOM.name} else {"random": "the run itself is paid by chance"},
        "format": {}
        if form and form.keys() != used.keys()
        else {"format": "the run is paid for nothing else" if form else "the run is paid for no format"},
    }
    left_out = why["random"] | why["format"]
    return {name: rewards for name, rewards in paid.items() if name not in left_out}, left_out


def weigh(run_path: Path, paid: Mapping[str, Mapping[str, float]], left_out: Mapping[str, str]) -> Controls:
    """Compares a run with its finished controls. Raises `RunDirError` where evaluations or their items are missing."""
    main = read_record(run_path)
    found = {name: read_record(RunDir(run_path).control(name)) for name in paid}
    controls = tuple(
        ControlResult(
            name,
            dict(paid[name]),
            record.last_step,
            _gain(record, LENIENT),
            _gain(record, STRICT),
            _beyond(record, main, LENIENT),
            _beyond(record, main, STRICT),
        )
        for name, record in found.items()
    )
    steps = max((record.last_step for record in found.values()), default=0)
    return Controls(main.last_step, steps, _gain(main, LENIENT), _gain(main, STRICT), controls, dict(left_out))


def _control(composed: ResolvedConfig, config: RunConfig, rewards: Mapping[str, float], steps: int) -> ResolvedConfig:
    """Returns a run's resolved configuration with other rewards and fewer steps, evaluated at both ends alone."""
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


def _gain(record: RunRecord, judged: str) -> PairedDifference:
    return _paired(record, record, judged)


def _beyond(control: RunRecord, main: RunRecord, judged: str) -> PairedDifference:
    first, second = control.latest, main.latest
    told = paired_difference(first, second, judged) if first and second else None
    return _known(told, main)


def _paired(first: RunRecord, second: RunRecord, judged: str) -> PairedDifference:
    before, after = first.before, second.latest
    return _known(paired_difference(before, after, judged) if before and after else None, first)


def _known(told: PairedDifference | None, record: RunRecord) -> PairedDifference:
    if told is None:
        raise RunDirError(
            f"{record.path} has no items that were evaluated at both ends.", hint="Controls need both evaluations."
        )
    return told


def _words(told: Controls) -> Iterator[str]:
    if told.controls:
        found = "; ".join(_gained(control) for control in told.controls)
        yield f"The run gained {points(told.gain)} in {told.steps} steps. In {told.control_steps} steps, {found}."
        best = max(told.controls, key=lambda control: control.gain.gain)
        yield _beyond_words(best)
        if told.control_steps < told.steps:
            yield "What the controls would gain in as many steps as the run is not known."
    for name, why in told.left_out.items():
        yield f"No control with {PAID_BY[name]}: {why.rstrip('.')}."


def _gained(control: ControlResult) -> str:
    """Says what came with a control's reward, and whether chance explains it."""
    by = PAID_BY[control.name]
    if control.gain.is_distinguishable:
        return f"{points(control.gain)} came also with {by}"
    return f"no difference can be told with {by} ({points(control.gain)})"


def _beyond_words(control: ControlResult) -> str:
    beyond, by = control.beyond, PAID_BY[control.name]
    if not beyond.is_distinguishable:
        return f"Beyond {by} nothing can be told of the run: {points(beyond)}. Its gain may need no right answers."
    if beyond.gain < 0:
        return f"The run ends {points(beyond)} behind {by}."
    return f"Beyond {by} the run has {points(beyond)}: that part of the gain needs the rewards it was paid."
