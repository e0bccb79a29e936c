"""One run, told once from top to bottom: prepare, load, evaluate, train, evaluate, save."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.compose import Composed
from lowmem_rl.engine.logprobs import view_of
from lowmem_rl.engine.peak import peak_bytes
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process, shares_prompts
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.errors import Interrupted, LowMemError, RewardError
from lowmem_rl.evaluation.evaluate import evaluate
from lowmem_rl.evaluation.result import EvalResult, compare
from lowmem_rl.example import Example
from lowmem_rl.hardware import GIB, this_machine
from lowmem_rl.memory.calibration import store
from lowmem_rl.planning.settings import planner_origins
from lowmem_rl.rewards.apart import apart
from lowmem_rl.rewards.model import bind_rewards, without_model
from lowmem_rl.runs import RunDir, write_json
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.training.dataset import check_enough, short_enough, to_dataset, tokens_of
from lowmem_rl.training.events import EvalEnded, EvalProgressed, Listener, Noted, PhaseBegan, Saved, StepEnded
from lowmem_rl.training.library_talk import library_talk_to
from lowmem_rl.training.look_back import look_back
from lowmem_rl.training.machine import machine_record
from lowmem_rl.training.measure import first_step_rows
from lowmem_rl.training.meter import PhaseMeter
from lowmem_rl.training.order import arranged, order_of
from lowmem_rl.training.preflight import Inputs, prepare
from lowmem_rl.training.record import Recorder, step_callback
from lowmem_rl.training.rollback import go_back
from lowmem_rl.training.trackers import prepare_trackers
from lowmem_rl.training.trainer import make_trainer
from lowmem_rl.training.trl_args import adjustments
from lowmem_rl.training.trl_rewards import FailureCount, TrlReward
from lowmem_rl.training.watch import Watch


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the run lies, and what it was worth."""

    path: Path
    before: EvalResult
    after: EvalResult


def run(
    composed: Composed,
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
    run_dir = open_run(composed, inputs, out)
    with library_talk_to(run_dir.log):
        return Run(run_dir, inputs, listen).go()


def open_run(composed: Composed, inputs: Inputs, out: Path) -> RunDir:
    """Makes the run directory and writes what is known before the run."""
    run_dir = RunDir.create(out)
    resolved = inputs.plan.config.model_dump(mode="json")
    origins = dict(composed.origins) | planner_origins(composed.config)
    write_json(run_dir.config, {"preset": composed.preset, "config": resolved, "origins": origins})
    write_json(run_dir.machine, machine_record(this_machine(), inputs.device))
    forced = [str(refusal) for refusal in inputs.overridden]
    write_json(run_dir.estimate, inputs.plan.to_json() | {"forced": forced})
    return run_dir


class Run:
    """The state of one run between its parts."""

    def __init__(self, run_dir: RunDir, inputs: Inputs, listen: Listener) -> None:
        self.config = inputs.plan.config
        self.plan = inputs.plan
        self.overridden = inputs.overridden
        self.notes = inputs.notes
        self.run_dir = run_dir
        self.device = inputs.device
        self.meter = PhaseMeter(inputs.device)
        self.rewards = inputs.rewards
        self.judge = inputs.judge
        self.rates = inputs.rates
        self.train_examples = list(inputs.train)
        self.test_examples = list(inputs.test)
        self.listen = listen
        self.evaluations: dict[str, Any] = {"before": None, "during": [], "after": None, "comparison": None}

    def go(self) -> RunResult:
        """Loads, evaluates, trains, evaluates, saves."""
        with apart(self.rewards) as self.rewards:  # a reward of the user's that hangs costs one completion
            try:
                return self._go()
            finally:
                look_back(self.run_dir, lambda text: self.listen(Noted(text)))

    def _go(self) -> RunResult:
        with self._undone_if_it_fails():
            policy = self._load()
            before = self._evaluate(self.test_examples, "before", step=0)
        with self._saved_at_the_end(policy):
            self._train(policy)
        with self._told_if_interrupted("The final evaluation was stopped by Ctrl-C", self._where):
            after = self._evaluate(self.test_examples, "after", step=self.config.grpo.steps)
        self._write_evaluations(before=before.to_json(), after=after.to_json(), comparison=compare(before, after))
        return RunResult(self.run_dir.path, before, after)

    def _load(self) -> Policy:
        self._tell_plan()
        for adjustment in adjustments(self.config, self.device):
            self.listen(Noted(str(adjustment)))
        self.listen(PhaseBegan(f"loading {self.config.model.name}"))
        prepare_process(self.config, self.device)
        prepare_trackers(self.config.logging.report_to, self.run_dir.trackers)
        policy = load_policy(self.config, self.device)
        self.text_rewards = without_model(self.rewards)
        self.rewards = bind_rewards(self.rewards, view_of(policy, self.config))
        usable = short_enough(policy, self.train_examples, self.config.grpo.max_prompt_tokens)
        overlong = len(self.train_examples) - len(usable)
        check_enough(usable, self.config, overlong=overlong)
        if overlong:
            limit = self.config.grpo.max_prompt_tokens
            self.listen(Noted(f"{overlong} prompts of over {limit} tokens are left out (grpo.max_prompt_tokens)"))
        self.train_examples = arranged(usable, self.config, self.rates)
        self.sampler = Sampler(policy, self.config, lambda text: self.listen(Noted(text)))
        self.listen(Noted(f"sampling: {self.sampler.choice}"))
        self._write_engine(policy)
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
        self.listen(Noted(f"memory {memory}: {expected:.1f} to {upper:.1f} GiB of {budget:.1f}; signal {signal}"))
        for refusal in self.overridden:
            self.listen(Noted(f"overridden by --force: {refusal}"))
        for note in self.notes:
            self.listen(Noted(note))

    def _train(self, policy: Policy) -> None:
        self.listen(PhaseBegan("training"))
        by_id = {example.id: example for example in self.train_examples}
        order = order_of(self.train_examples, self.config, self.rates)
        watch = Watch(self.run_dir, self.config, self.listen)
        recorder = Recorder(
            self.run_dir, self.config, self.rewards, self.judge, by_id, policy, order.note, watch.on_kept
        )
        failures = FailureCount(self.config.health.max_reward_error_share, lambda text: self.listen(Noted(text)))

        def after_step(logs: Mapping[str, Any], step: int) -> None:
            if step == 1:
                self._remember_first_step()
            row = recorder.on_logs(logs, step, peak_bytes(self.device))
            self.listen(StepEnded(row, self.config.grpo.steps))
            if step == 1:
                self._write_engine(policy)
            watch.look(row)
            if not watch.act(lambda ailing: go_back(ailing, step, self.run_dir, policy, trainer)):
                recorder.check_finite(row)
            self._between_steps(policy, step)
            recorder.restart_clock()

        trainer = make_trainer(
            policy,
            self.config,
            sampler=self.sampler,
            dataset=to_dataset(self.train_examples),
            prompt_tokens=tokens_of(policy, by_id),
            reward_functions=[TrlReward(r, by_id, policy.complete, failures) for r in self.rewards.rewards],
            callbacks=[step_callback(after_step)],
            on_scored=recorder.on_scored,
            choose=lambda prompts: order.choose(prompts, recorder.step + 1),
            out=self.run_dir.path,
        )
        if self.device.is_gpu:
            self.meter.attach(trainer)
        recorder.restart_clock()
        trainer.train()
        self._write_engine(policy)  # what samples may have fallen back

    def _remember_first_step(self) -> None:
        """Keeps what the first step took on this card beside what was predicted: later predictions use it."""
        if not self.device.is_gpu:
            return
        try:
            store(first_step_rows(self.meter, self.plan), lambda line: self.listen(Noted(line)))
        except Exception as error:  # noqa: BLE001  # a record of memory must never cost the run
            self.listen(Noted(f"the first step's memory is not recorded: {type(error).__name__}: {error}"))

    def _between_steps(self, policy: Policy, step: int) -> None:
        last = step == self.config.grpo.steps
        if _due(step, self.config.eval.every) and not last:
            few = self.test_examples[: self.config.eval.quick_examples]
            during = self._evaluate(few, f"step-{step:06d}", step=step)
            self._write_evaluations(during=[*self.evaluations["during"], during.to_json()])
        if _due(step, self.config.logging.checkpoint_every) and not last:
            policy.save_adapter(self.run_dir.checkpoint(step))

    def _evaluate(self, examples: list[Example], name: str, *, step: int) -> EvalResult:
        self.listen(EvalProgressed(name, 0, len(examples)))
        failed: list[RewardError] = []
        result = evaluate(
            self.sampler,
            examples,
            self.judge,
            self.text_rewards,
            task=self.config.task.name,
            step=step,
            max_tokens=self.config.grpo.max_completion_tokens,
            batch=self.config.eval.batch,
            items_path=self.run_dir.eval_items(name),
            on_progress=lambda done: self.listen(EvalProgressed(name, done, len(examples))),
            on_failure=failed.append,
        )
        self._tell_failures(failed, len(examples), is_first=step == 0)
        self.listen(EvalEnded(name, result))
        if name == "before":
            self._write_evaluations(before=result.to_json())
        return result

    def _tell_failures(self, failed: Sequence[RewardError], scored: int, *, is_first: bool) -> None:
        """Notes rewards that failed. Too many stop a run before training; later they must not cost what was learnt."""
        for error in failed:
            self.listen(Noted(str(error)))
        if is_first and len(failed) > self.config.health.max_reward_error_share * scored:
            raise failed[-1]

    def _write_evaluations(self, **parts: Any) -> None:
        self.evaluations |= parts
        write_json(self.run_dir.evaluations, self.evaluations)

    @contextlib.contextmanager
    def _undone_if_it_fails(self) -> Iterator[None]:
        """Empties the run directory where the run ends before its first step, so that `out` can be used again.

        A bug keeps it: what the libraries said is in there.
        """
        try:
            again = "Start it again with the same command."
            with self._told_if_interrupted("Stopped by Ctrl-C before the first step; nothing is left behind", again):
                yield
        except LowMemError:
            self.run_dir.undo()
            raise

    @contextlib.contextmanager
    def _saved_at_the_end(self, policy: Policy) -> Iterator[None]:
        """Saves the adapter however training ends."""
        try:
            with self._told_if_interrupted("Stopped by Ctrl-C; what was learnt so far is saved", self._where):
                yield
        finally:
            policy.save_adapter(self.run_dir.adapter)
            # The meter sets CUDA's own counter of the peak back.
            peak = max(self.meter.highest_bytes, peak_bytes(self.device))
            write_json(self.run_dir.peak, {"peak_bytes": peak})
            self.listen(Saved(self.run_dir.adapter))

    @property
    def _where(self) -> str:
        return f"The adapter is in {self.run_dir.adapter}"

    @contextlib.contextmanager
    def _told_if_interrupted(self, what: str, hint: str) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as error:
            raise Interrupted(f"{what}.", hint=hint) from error


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
