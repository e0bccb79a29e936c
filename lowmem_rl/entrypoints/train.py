"""One run, told once from top to bottom: prepare, load, evaluate, train, evaluate, save."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.checkpointer import Checkpointer
from lowmem_rl.checkpointing.resume import (
    ResumeState,
    check_device,
    check_examples,
    digest_of,
    environment_change_notes,
    is_finished,
    previous_findings_note,
    restore_run_dir,
    save_config_changes,
    used_force,
)
from lowmem_rl.checkpointing.rollback import Rollback, with_old_checkpoints
from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.engine.backend import SamplingBackend
from lowmem_rl.engine.logprobs import view_of
from lowmem_rl.engine.oom import OutOfMemory, catch_oom
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process, shares_prompts
from lowmem_rl.engine.rng import preserved_rng
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.entrypoints.preflight import PreparedRun, prepare
from lowmem_rl.entrypoints.row_uses import sequence_uses
from lowmem_rl.errors import DoesNotFit, RunDirError
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import questions_of
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.prompt_order import arranged, order_of
from lowmem_rl.grpo.train_dataset import check_enough, to_dataset, tokens_of, within_prompt_limit
from lowmem_rl.models.hardware import GIB, this_machine
from lowmem_rl.planning.oom_advice import suggest_fix
from lowmem_rl.planning.overrides import planner_origins
from lowmem_rl.rewards.isolated import isolated
from lowmem_rl.rewards.model_reward import bind_rewards, without_model
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.storage.disk import DiskFullRetry, retry_when_disk_full, write_dir_atomic
from lowmem_rl.storage.lock import locked
from lowmem_rl.storage.run_dir import RunDir, append_row, read_rows, write_json
from lowmem_rl.tasks.curriculum import RolloutOutcome, read_order
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl.telemetry.events import AdapterSaved, Listener, Note, PhaseStarted, StepEnded, isolate_listener
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.telemetry.trackers import attach_trackers, tell_trackers, trackers_in
from lowmem_rl.training.eval_schedule import BestCheckpoint, EvalSchedule
from lowmem_rl.training.final_report import write_final_report
from lowmem_rl.training.health_monitor import HealthMonitor
from lowmem_rl.training.peak_memory import PeakMemory
from lowmem_rl.training.recorder import Recorder, step_callback
from lowmem_rl.training.shutdown import ShutdownPolicy
from lowmem_rl.training.signals import handle_stop_signals
from lowmem_rl.trl_adapter.grpo_args import adjustments
from lowmem_rl.trl_adapter.reward_funcs import RewardErrorCounter, TrlReward
from lowmem_rl.trl_adapter.trainer import make_trainer


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the run lies, and what it was worth."""

    path: Path
    before: EvalResult
    after: EvalResult
    comparison: Mapping[str, Any]
    """What was gained, as eval.json holds it."""
    best: BestCheckpoint


def run(
    composed: ResolvedConfig,
    out: Path,
    listen: Listener = lambda event: None,
    *,
    force: bool = False,
    pass_rate: PassRate | None = None,
) -> RunResult:
    """Trains one run into `out`; `force` starts one that would not fit or carries no signal at `pass_rate`.

    Raises, before anything expensive: `ConfigError`, `TaskError`, `SetupError`, `DoesNotFit`, `NoSignal`,
    `RunDirError`; later `TrainingError`, and `Interrupted` after saving the adapter. A run that fails before
    its first step leaves `out` as it was.
    """
    inputs = prepare(composed, force=force, pass_rate=pass_rate)
    run_dir, listen = RunDir.create(out), isolate_listener(listen)
    with locked(run_dir.lock, lambda text: listen(Note(text))):
        begin(run_dir, composed, inputs)  # not before: of two that begin here at once, one alone may write
        with capture_library_output(run_dir.log):
            return Run(run_dir, inputs, listen).go()


def resume(
    composed: ResolvedConfig, out: Path, listen: Listener = lambda event: None, *, force: bool = False
) -> RunResult | None:
    """Goes on with the run in `out`, exactly, and returns what it was worth; None where it is finished already.

    `composed` is what `resuming.read_composed` found there. Raises as `run` does, and `RunDirError` for a directory
    that is in use, damaged, or of another version.
    """
    run_dir, listen = RunDir(out), isolate_listener(listen)
    with locked(run_dir.lock, lambda text: listen(Note(text))):
        if is_finished(run_dir):
            return None
        inputs = prepare(composed, force=True)  # the gate was passed when the run began
        for refusal in inputs.overridden:
            if isinstance(refusal, DoesNotFit) and not (force or used_force(run_dir)):
                raise refusal
        check_device(run_dir, inputs.device)
        notes = environment_change_notes(run_dir, environment_record(this_machine(), inputs.device))
        inputs = replace(inputs, overridden=(), notes=(*inputs.notes, *notes, *previous_findings_note(run_dir)))
        standing = restore_run_dir(run_dir, composed.config, lambda text: listen(Note(text)))
        try:
            save_config_changes(run_dir, composed)
        except OSError as error:
            raise RunDirError(
                f"{run_dir.config} cannot be written: {error.strerror}.", hint="Mend that, and repeat the command."
            ) from error
        with capture_library_output(run_dir.log):
            return Run(run_dir, inputs, listen, standing).go()


def begin(run_dir: RunDir, composed: ResolvedConfig, inputs: PreparedRun) -> None:
    """Writes what is known before the run."""
    resolved = inputs.plan.config.model_dump(mode="json")
    origins = dict(composed.origins) | planner_origins(composed.config)
    forced = [str(refusal) for refusal in inputs.overridden]
    known = {"preset": composed.preset, "card": composed.card, "config": resolved, "origins": origins}
    try:
        write_json(run_dir.machine, environment_record(this_machine(), inputs.device))
        write_json(run_dir.estimate, inputs.plan.to_json() | {"forced": forced})
        write_json(run_dir.config, known)  # the last one: a run that has it can be gone on with
    except OSError as error:
        run_dir.undo()
        what = f"{run_dir.path} cannot be written: {error.strerror}."
        raise RunDirError(what, hint="Give another with --out.") from error


class Run:
    """The state of one run between its parts; it begins where it is `standing`, or anew."""

    def __init__(
        self, run_dir: RunDir, inputs: PreparedRun, listen: Listener, standing: ResumeState | None = None
    ) -> None:
        self.config = inputs.plan.config
        self.plan = inputs.plan
        self.overridden = inputs.overridden
        self.notes = inputs.notes
        self.run_dir = run_dir
        self.device = inputs.device
        self.rewards = inputs.rewards
        self.judge = inputs.judge
        self.rates = inputs.rates
        self.train_examples = list(inputs.train)
        self.test_examples = list(inputs.test)
        self.further = inputs.further
        self.uses = sequence_uses(inputs)
        self.listen = listen
        self.standing = standing or ResumeState()
        self.is_new, self.is_put_back = standing is None, self.standing.checkpoint is None
        self.peaks = PeakMemory(run_dir, inputs.device, inputs.plan, self.standing)
        self.recovery = OomPolicy(
            self.config, run_dir.recoveries, self._note, partial(suggest_fix, self.config, self.plan.target)
        )
        self.recovery.step = self.standing.step

    def go(self) -> RunResult:
        """Loads, evaluates, trains, evaluates, saves."""
        with handle_stop_signals() as self.stop, retry_when_disk_full(DiskFullRetry(self._note, self.stop.sleep)):
            self.endings = ShutdownPolicy(self.run_dir, self.stop, self._note, is_new=self.is_new)
            with (
                isolated(self.rewards) as self.rewards,  # a reward of the user's that hangs costs one completion
                self.endings.looked_back_on(lambda: write_final_report(self.run_dir, self._note)),
                trackers_in(self.run_dir.trackers, self.config.logging.report_to),
            ):
                return self._go()

    def _note(self, text: str) -> None:
        self.listen(Note(text))

    def _go(self) -> RunResult:
        with self.endings.undone_if_it_fails(), self.recovery.stopped("evaluation", lambda: "Before the first step"):
            policy = self._load()
            before = self.evaluations.before()
            self.peaks.meter.end("evaluation")
        with self.endings.saved(lambda: self._save(policy)):
            if self.standing.step < self.config.grpo.steps:
                self._train(policy)
            else:
                self._put_back(policy)
            self._take_the_best(policy)
        with (
            self.endings.told_if_interrupted("the training is done and saved, its final evaluation is not"),
            self.recovery.stopped("evaluation", lambda: "In the final evaluation"),
        ):
            after = self.evaluations.after()
        best = self.evaluations.best
        assert best is not None
        return RunResult(self.run_dir.path, before, after, self.evaluations.told["comparison"], best)

    def _load(self) -> Policy:
        self._tell_plan()
        for adjustment in adjustments(self.config, self.device):
            self.listen(Note(str(adjustment)))
        self.listen(PhaseStarted(f"loading {self.config.model.name}"))
        prepare_process(self.config, self.device)
        policy = load_policy(self.config, self.device, self.uses)
        self.peaks.meter.end("load")
        text_rewards = without_model(self.rewards)
        self.rewards = bind_rewards(self.rewards, view_of(policy, self.config, self.recovery.logprobs))
        usable = within_prompt_limit(policy, self.train_examples, self.config.grpo.max_prompt_tokens)
        overlong = len(self.train_examples) - len(usable)
        check_enough(usable, self.config, overlong=overlong)
        if overlong:
            limit = self.config.grpo.max_prompt_tokens
            self.listen(Note(f"{overlong} prompts of over {limit} tokens are left out (grpo.max_prompt_tokens)"))
        self.train_examples = arranged(usable, self.config, self.rates)
        check_examples(self.standing, self.train_examples)
        chosen = self.standing.counts.get("sampling")
        self.sampler = Sampler(policy, self.config, self._note, chosen and SamplingBackend(**chosen))
        self.sampler.rollout_limit, self.sampler.answer_limit = self.recovery.rollout, self.recovery.evaluation
        self.listen(Note(f"sampling: {self.sampler.choice}"))
        self._write_engine(policy)
        asked = questions_of(self.config, self.config.task, self.test_examples, self.judge, text_rewards)
        self.evaluations = EvalSchedule(self.run_dir, self.config, self.sampler, asked, self.further, self.listen)
        if not self.is_new:
            self.evaluations.forget_behind(self.standing.step)
        return policy

    def _write_engine(self, policy: Policy) -> None:
        """Records what samples, and on a GPU whether the kernels shared the prompts of groups in the update."""
        sharing = shares_prompts(policy) if self.device.is_gpu else None
        record = {"sampling": self.sampler.choice.to_json(), "update_shares_prompts": sharing}
        write_json(self.run_dir.engine, record)

    def _tell_plan(self) -> None:
        memory, signal = self.plan.memory_verdict, self.plan.signal.verdict
        expected, upper = self.plan.estimate.expected_bytes / GIB, self.plan.estimate.upper_bytes / GIB
        budget = self.plan.target.budget_bytes / GIB
        self.listen(Note(f"memory {memory}: {expected:.1f} to {upper:.1f} GiB of {budget:.1f}; signal {signal}"))
        for refusal in self.overridden:
            self.listen(Note(f"overridden by --force: {refusal}"))
        for note in self.notes:
            self.listen(Note(note))

    def _train(self, policy: Policy) -> None:
        self.listen(PhaseStarted("training"))
        by_id = {example.id: example for example in self.train_examples}
        order = order_of(self.train_examples, self.config, self.rates, self._drawn())
        watch = HealthMonitor(self.run_dir, self.config, self.listen)
        recorder = Recorder(
            self.run_dir, self.config, self.rewards, self.judge, by_id, policy, order.note, watch.on_kept
        )
        failures = RewardErrorCounter(self.config.health.max_reward_error_share, self._note)

        def after_step(logs: Mapping[str, Any], step: int) -> None:
            row = recorder.on_logs(logs, step, self.peaks.highest_bytes)
            self.listen(StepEnded(row, self.config.grpo.steps))
            if step == 1:
                self._write_first_step(policy)
            tell_trackers(trainer, {f"health/{found.name}": found.confidence for found in watch.look(row)})

        def at_border() -> None:
            watch.act(Rollback(self.run_dir, policy, trainer, self._note).go)
            keeper.take(trainer)
            self.stop.release()
            watch.end_if_asked()
            step = trainer.state.global_step
            self._between_steps(step)
            keeper.write_if_due(step, is_last=step == self.config.grpo.steps)
            recorder.restart_clock()

        counts = partial(self._counts, recorder, failures, digest_of(self.train_examples))
        keeper = Checkpointer(self.run_dir, with_old_checkpoints(self.config), policy, counts, self._note)
        trainer = make_trainer(
            policy,
            self.config,
            sampler=self.sampler,
            dataset=to_dataset(self.train_examples),
            prompt_tokens=tokens_of(policy, by_id),
            reward_functions=[TrlReward(r, by_id, policy.complete, failures) for r in self.rewards.rewards],
            callbacks=[step_callback(after_step, self.stop.hold)],
            on_scored=recorder.on_scored,
            choose=lambda prompts: order.choose(prompts, recorder.step + 1),
            out=self.run_dir.path,
            recovery=self.recovery,
        )
        trainer.on_border = at_border
        attach_trackers(trainer, self.config.logging.report_to, self._note)
        recorder.clock.watch(trainer)
        if self.standing.checkpoint:
            recorder.go_on(self.standing.counts["recorder"])
            failures.go_on(self.standing.counts["failures"])
            self.recovery.go_on(self.standing.counts["recovery"])
        self.peaks.attach(trainer)
        recorder.restart_clock()
        with self.endings.kept(keeper), self.recovery.told_at_the_end():
            self._run_steps(policy, trainer)
        self._write_engine(policy)  # what samples may have fallen back

    def _counts(self, recorder: Recorder, failures: RewardErrorCounter, digest: str) -> dict[str, Any]:
        """Returns what a run that goes on has to know besides the trainer's state."""
        return {
            "recorder": recorder.counts(),
            "failures": failures.counts(),
            "recovery": self.recovery.counts(),
            "sampling": self.sampler.choice.to_json(),
            "examples": digest,
        }

    def _write_first_step(self, policy: Policy) -> None:
        """Writes what only a step can tell: which kernels ran, and what each phase held."""
        self._write_engine(policy)
        self.peaks.write()
        if not self.recovery.times:  # else it was another step than the one predicted
            self.peaks.remember(self._note)

    def _save(self, policy: Policy) -> None:
        if not self.is_put_back:  # the adapter of before stays
            return
        self._write_adapter(policy)
        self.peaks.write()
        self.listen(AdapterSaved(self.run_dir.adapter))

    def _write_adapter(self, policy: Policy) -> None:
        """A 4-bit model's `state_dict` packs its quantisation's constants on the card: that may need a second try."""
        found = catch_oom(lambda: write_dir_atomic(self.run_dir.adapter, policy.save_adapter))
        if isinstance(found, OutOfMemory):
            with self.recovery.stopped("between", lambda: "While the adapter was saved"):
                write_dir_atomic(self.run_dir.adapter, policy.save_adapter)

    def _drawn(self) -> list[RolloutOutcome]:
        """Returns the rounds of sampling that the run has done."""
        return read_order(self.run_dir.order) if self.standing.checkpoint else []

    def _run_steps(self, policy: Policy, trainer: Any) -> None:
        checkpoint = self.standing.checkpoint
        if checkpoint is None:
            trainer.train()
            return
        self._put_back(policy)
        self._between_steps(checkpoint.step)  # a run that was stopped there has not evaluated
        began = time.monotonic()

        def restored() -> None:
            seconds = self.standing.seconds + time.monotonic() - began
            append_row(self.run_dir.resumes, {"step": checkpoint.step, "seconds": seconds})
            self._note(f"goes on behind step {checkpoint.step}, read in {seconds:.1f} s")

        trainer.on_restored = restored
        trainer.begin_at(checkpoint.path, checkpoint.step)
        trainer.train(resume_from_checkpoint=str(checkpoint.path))

    def _put_back(self, policy: Policy) -> None:
        """Loads the checkpoint's weights, once the trainer is made: those it finds are its reference."""
        if self.standing.checkpoint:
            load_adapter(policy.model, self.standing.checkpoint.path)
        self.is_put_back = True

    def _take_the_best(self, policy: Policy) -> None:
        """Lets a run that went back end no worse than it was at its best: going on may not have reached that again."""
        last = self.config.grpo.steps
        if not any(read_rows(self.run_dir.rollbacks)):
            return
        self._evaluate_during(last)
        best = self.evaluations.best
        if best and best.step < last:
            try:
                load_adapter(policy.model, self.run_dir.best)
            except RunDirError as error:  # the run must be able to end
                self._note(f"the last weights stay, for the best ones are gone: {error}")
                return
            self._note(f"the weights of step {best.step} answered no fewer, and are the run's: {best.pass_at_1:.3f}")

    def _between_steps(self, step: int) -> None:
        last = step == self.config.grpo.steps
        if _due(step, self.config.eval.every) and not last and not self.evaluations.has(step):
            self._evaluate_during(step)

    def _evaluate_during(self, step: int) -> None:
        """Evaluates, and leaves training as it is; what is not done again there ends the run as an evaluation's."""
        with preserved_rng(), self.recovery.stopped("evaluation", lambda: f"In the evaluation after step {step}"):
            self.evaluations.during(step)


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
