"""A loaded arm that trains one task after the other, each from the same adapter.

Imports TRL, so arms that use Unsloth import this module after Unsloth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
from pydantic import TypeAdapter
from transformers import TrainerCallback

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.backend import build
from lowmem_rl.engine.continuous_batching import SampledCompletion, StoppingCriteria, sample
from lowmem_rl.engine.kept_copies import KeptCopies
from lowmem_rl.engine.kept_states import StateRecorder
from lowmem_rl.engine.logprobs import view_of
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.row_length import training_row
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import SamplingParams, sample_token, stream_names, uniform_noise
from lowmem_rl.example import Example
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.rewards.model_reward import bind_rewards
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler
from lowmem_rl.training.reward_errors import RewardErrorCounter
from lowmem_rl.trl_adapter.reward_funcs import TrlReward
from lowmem_rl_bench.step import stacks
from lowmem_rl_bench.step.arm_timer import ArmTimer, count_engine, optimizer_callback, timed_by
from lowmem_rl_bench.step.arms import Arm, ArmTask
from lowmem_rl_bench.step.bench_workload import BenchWorkload
from lowmem_rl_bench.step.matrix_products import ProductsProfile
from lowmem_rl_bench.step.token_replay import (
    Choose,
    RecordedCompletions,
    choose_recorded,
    replace_in_generate,
    replayed_batches,
)

ReadOrder = Callable[[], Mapping[str, Any]]
SendAnswer = Callable[[Mapping[str, Any]], None]


class ArmSession:
    """An arm and its policy; `order` waits for the next order, `answer` sends the result."""

    def __init__(self, arm: Arm, config: RunConfig, policy: Policy, order: ReadOrder, answer: SendAnswer) -> None:
        self.arm, self.config, self.policy, self.order, self.answer = arm, config, policy, order, answer
        self.timer = ArmTimer(policy.device)
        self.timer.count_tokens(policy.model)
        self.generate = policy.model.generate
        self.generate_batch: Callable[..., Any] = getattr(policy.model, "generate_batch", self.generate)
        if arm.stack == "ours":
            count_engine(self.timer.counts)

    def run(self, task: ArmTask) -> None:
        """Trains a task, one step an order, until the order to end."""
        config = with_overrides(self.config, task.settings).model_copy(update={"seed": task.seed})
        recorded = RecordedCompletions(BenchWorkload.read(Path(task.workload))) if task.workload else None
        trainer = self._trainer(task, config, recorded)
        # `generate`, if the arm uses it, samples the recorded tokens or those of our engine's random streams.
        chooser: Callable[[list[list[int]]], Choose] | None = None
        if recorded is not None:
            chooser = partial(choose_recorded, recorded, device=self.policy.model.device)
        elif task.noise:
            chooser = partial(_choose_with_our_noise, config, trainer)
        self.policy.model.generate = self.generate
        replace_in_generate(self.policy.model, chooser, self.timer.counts)
        if recorded is not None and "use_transformers_continuous_batching" in self.arm.arguments:
            model: Any = self.policy.model
            model.generate_batch = replayed_batches(self.generate_batch, recorded, self.timer.counts)
        # A replay starts from one adapter for every row order; a live run from its seed's, as training does.
        stacks.fill_adapter(self.policy.model, *((0, stacks.B_SPREAD) if recorded else (task.seed, 0.0)))
        memory = MemoryProfiler(self.policy.device)
        memory.begin()
        trainer.train()
        memory.end("task")
        _save(f"{task.out}.weights.npz", stacks.adapter_of(self.policy.model))
        engine = {"engine": "generate", "weights": None, "reason": f"as {type(trainer).__module__} samples"}
        if self.arm.stack == "ours":
            engine = dict(trainer.sampler.backend.to_json())
        self.answer({"peak_bytes": memory.phases["task"].process_bytes, "engine": engine})

    def _trainer(self, task: ArmTask, config: RunConfig, recorded: RecordedCompletions | None) -> Any:
        rewards: Sequence[Any]
        if recorded is None:
            found = TypeAdapter(list[Example]).validate_json(Path(str(task.examples)).read_bytes())
            examples = {example.id: example for example in found}
            bound = bind_rewards(load_reward_set(config.rewards), view_of(self.policy, config))
            errors = RewardErrorCounter(config.health.max_reward_error_share, lambda text: None)
            rewards = [TrlReward(reward, examples, self.policy.complete, errors) for reward in bound.rewards]
        else:
            examples, rewards = recorded.examples, [recorded]
        sampler = self._sampler(config, recorded) if self.arm.stack == "ours" else None
        callbacks = [_take_orders(self, task, saves_gradients=recorded is not None), optimizer_callback(self.timer)]
        kinds = (timed_by(self.timer),)
        spec = stacks.TrainerSpec(config, examples, rewards, callbacks, Path(f"{task.out}.trainer"), kinds)
        return stacks.build(self.arm, self.policy, sampler, spec)

    def _sampler(self, config: RunConfig, recorded: RecordedCompletions | None) -> Sampler:
        """Returns our sampler, with the recorded tokens and with the savings of the arm."""
        sampler, off = Sampler(self.policy, config), self.arm.off
        is_cpu = not self.policy.device.is_gpu
        sampler.kept = None if off == "copies kept" else KeptCopies(keeps_memory=is_cpu)
        sampler.says_its_log_probs = off != "update compares"

        def replayed(
            prompts: Any,
            streams: Any,
            params: SamplingParams,
            limits: StoppingCriteria,
            states: StateRecorder | None = None,
        ) -> list[SampledCompletion]:
            limits = replace(limits, reads_once=off != "prompts read once", leaves_early=off != "finished rows leave")
            decoder = build(self.policy, sampler.backend.weights, training_row(config), sampler.kept)
            forced = None if recorded is None else recorded.completions(prompts)
            return sample(decoder, prompts, streams, params, limits, forced, states)

        sampler.sample = replayed  # type: ignore[method-assign]
        return sampler


def _choose_with_our_noise(config: RunConfig, trainer: Any, prompts: list[list[int]]) -> Choose:
    """Chooses as our engine does: with the noise that belongs to the row's number in the step."""
    names = stream_names(f"{config.seed}/{trainer.state.global_step}/0", len(prompts))
    noise = uniform_noise(names, config.grpo.max_completion_tokens)
    params = replace(SamplingParams.of(config.rollout), repetition_penalty=1.0)  # `generate` has applied it
    return lambda scores, number: sample_token(scores.float(), noise[:, number].to(scores.device), params)[0]


def _take_orders(session: ArmSession, task: ArmTask, *, saves_gradients: bool) -> TrainerCallback:
    """Returns the callback that waits for an order before each step and answers after it."""
    profiles: list[ProductsProfile] = []

    def wait(control: Any) -> None:
        order = session.order()
        if "step" not in order:
            control.should_training_stop = True
        if order.get("is_profiled"):
            profiles.append(ProductsProfile())
        session.timer.restart()

    class TakeOrders(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            session.answer({"began": True})
            wait(control)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if saves_gradients and state.global_step == 0:
                adapter = stacks.adapter_of(session.policy.model)
                _save(f"{task.out}.gradients.npz", {name: weight.grad for name, weight in adapter.items()})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            products = {"products": profiles.pop().stop()} if profiles else {}
            session.answer(session.timer.read() | products)
            wait(control)

    return TakeOrders()


def _save(path: str, tensors: Mapping[str, Any]) -> None:
    numpy.savez(path, **{name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()})
