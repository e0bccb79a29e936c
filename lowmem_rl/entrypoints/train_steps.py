"""The steps of a run: its hooks, its trainer, from the first step or from a checkpoint to the last one."""

import time
from typing import Any

from lowmem_rl.checkpointing.checkpointer import Checkpointer
from lowmem_rl.checkpointing.rollback import Rollback, with_old_checkpoints
from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.entrypoints.load_run import Learner, LoadedRun
from lowmem_rl.entrypoints.run_context import RunContext
from lowmem_rl.errors import RunDirError
from lowmem_rl.grpo.prompt_order import order_of
from lowmem_rl.grpo.scored_batch import BatchDescriber
from lowmem_rl.grpo.train_dataset import to_dataset, tokens_of
from lowmem_rl.storage.run_dir import append_row, read_rows
from lowmem_rl.tasks.curriculum import read_order
from lowmem_rl.telemetry.events import PhaseStarted
from lowmem_rl.telemetry.step_timer import StepTimer
from lowmem_rl.training.adapter_saver import AdapterSaver
from lowmem_rl.training.health_monitor import HealthMonitor
from lowmem_rl.training.learning_weights import LearningWeights
from lowmem_rl.training.recorder import Recorder
from lowmem_rl.training.reward_errors import RewardErrorCounter
from lowmem_rl.training.schedule_hook import schedule_hook
from lowmem_rl.training.step import Hooks
from lowmem_rl.trl_adapter.reward_funcs import TrlReward
from lowmem_rl.trl_adapter.trainer import TrainerSetup, make_trainer


def train_steps(context: RunContext, loaded: LoadedRun, saver: AdapterSaver) -> None:
    """Trains to the last step. Raises `TrainingError`, and `Interrupted` after saving a checkpoint."""
    config = context.config
    context.listen(PhaseStarted("training"))
    errors = RewardErrorCounter(config.health.max_reward_error_share, context.note)
    checkpointer = Checkpointer(context.run_dir, with_old_checkpoints(config), config.grpo.steps, context.note)
    hooks = run_hooks(context, loaded, errors, checkpointer)
    trainer = make_trainer(loaded.policy, trainer_setup(context, loaded, errors, hooks))
    context.trackers.attach(trainer, context.resume_state.step)
    with context.shutdown.checkpoint_on_exit(checkpointer), context.oom_policy.report_settings():
        if context.resume_state.checkpoint is None:
            trainer.train()
        else:
            hooks.load_state_dict(context.resume_state.counts)
            saver.load_checkpoint()
            resume_steps(context, loaded, trainer)
    loaded.backend_record.write()  # what samples may have fallen back


def trainer_setup(context: RunContext, loaded: Learner, errors: RewardErrorCounter, hooks: Hooks) -> TrainerSetup:
    """Returns what the trainer of a run is made of."""
    config, policy = context.config, loaded.policy
    by_id = {example.id: example for example in loaded.examples}
    return TrainerSetup(
        config=config,
        sampler=loaded.sampler,
        dataset=to_dataset(loaded.examples),
        reward_functions=[TrlReward(r, by_id, policy.complete, errors) for r in loaded.rewards.rewards],
        prompt_tokens=tokens_of(policy, by_id),
        out=context.run_dir.path,
        hooks=hooks,
        describe=BatchDescriber(config, policy, loaded.rewards, context.prepared.grader, by_id),
        oom_policy=context.oom_policy,
    )


def run_hooks(context: RunContext, loaded: LoadedRun, errors: RewardErrorCounter, checkpointer: Checkpointer) -> Hooks:
    """Returns the hooks of a run; `training.step` says what each does, and when."""
    config, run_dir, listen = context.config, context.run_dir, context.listen
    asked = read_order(run_dir.order) if context.resume_state.checkpoint else []
    rollback = Rollback(run_dir, context.note)
    return Hooks(
        (
            StepTimer(loaded.policy.device),
            context.profiler,
            context.peaks,
            LearningWeights(loaded.policy.model),
            order_of(loaded.examples, config, context.prepared.rates, asked),
            Recorder(run_dir, config, listen),
            errors,
            context.oom_policy,
            HealthMonitor(run_dir, config, listen, rollback, context.stop.request),
            *schedule_hook(config, run_dir, loaded.policy.model, context.note, context.resume_state.step),
            checkpointer,
            context.stop,
            loaded.evaluations,
            loaded.backend_record,
        )
    )


def resume_steps(context: RunContext, loaded: LoadedRun, trainer: Any) -> None:
    """Continues after the checkpoint, whose weights are loaded."""
    checkpoint = context.resume_state.checkpoint
    assert checkpoint is not None
    loaded.evaluations.evaluate_if_due(checkpoint.step)  # a run that was stopped there has not evaluated
    began = time.monotonic()

    def on_restored() -> None:
        seconds = context.resume_state.seconds + time.monotonic() - began
        append_row(context.run_dir.resumes, {"step": checkpoint.step, "seconds": seconds})
        context.note(f"continues after step {checkpoint.step}, read in {seconds:.1f} s")

    trainer.resume_after(checkpoint.step, checkpoint.path, on_restored)
    trainer.train(resume_from_checkpoint=str(checkpoint.path))


def take_best(context: RunContext, loaded: LoadedRun) -> None:
    """Lets a run that rolled back end no worse than it was at its best: later steps may not have reached that again."""
    last = context.config.grpo.steps
    if not any(read_rows(context.run_dir.rollbacks)):
        return
    loaded.evaluations.during(last)
    best = loaded.evaluations.best
    if best and best.step < last:
        try:
            load_adapter(loaded.policy.model, context.run_dir.best)
        except RunDirError as error:  # the run must be able to end
            context.note(f"the last weights stay, because the best ones are gone: {error}")
            return
        context.note(f"the weights of step {best.step} are the run's, with no fewer correct: {best.pass_at_1:.3f}")
