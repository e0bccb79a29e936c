"""Replays: every arm takes the same tokens and rewards, in turns; their times and gradients are compared."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import template_of
from lowmem_rl.entrypoints.preflight import prepare
from lowmem_rl.example import Example
from lowmem_rl.models.lookup import model_path
from lowmem_rl.planning.overrides import divisors, with_overrides
from lowmem_rl_bench.step.arms import OTHERS, OURS, TRL_FAIR, Arm, ArmTask
from lowmem_rl_bench.step.bench_workload import BenchWorkload, WorkloadShape, make_workload
from lowmem_rl_bench.step.matrix_products import peak_of_arms, shares
from lowmem_rl_bench.step.progress import Progress, Report
from lowmem_rl_bench.step.ratios import clock_of, distance, ratio_of, summary
from lowmem_rl_bench.step.round_robin import ArmResult, Step, alive, take_turns

SETS: Mapping[str, Mapping[str, Any]] = {"skewed": {}, "equal": {"mean_share": 1.0, "dead_share": 0.0}}
"""Replays, as changes to `WorkloadShape`: typical lengths and dead groups, and the worst case for us."""
PRECISIONS = ("preset", "fp32")
FP32 = {"model.bits": 16, "model.dtype": "float32"}
_UNCLIPPED = 1e9


@dataclass(frozen=True, slots=True)
class Protocol:
    """How much is measured."""

    others: tuple[Arm, ...] = OTHERS
    precisions: tuple[str, ...] | None = None
    """Of PRECISIONS; None for both on a CPU and the preset's on a card, where float32 seldom fits."""
    sets: tuple[str, ...] = tuple(SETS)
    warmup: int = 2
    rounds: int = 8
    """Timed steps; the warm-up makes them ten, after which the weights are compared."""
    shape: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the shape of the replayed step."""
    seed: int = 0
    reorders: bool = True
    """Another stack's rows also come in another order: how much rounding alone changes its gradient."""
    savings: tuple[str, ...] = ()
    """If named, these savings alone are measured (`arms.ABLATIONS`), without the other stacks."""

    @property
    def steps(self) -> int:
        """All but the profiled one."""
        return self.warmup + self.rounds

    def steps_on(self, device: Device) -> int:
        """Returns the steps of an arm: on a CPU one more than the timed ones, under a profiler."""
        return self.steps + (0 if device.is_gpu else 1)

    def precisions_on(self, device: Device) -> tuple[str, ...]:
        """Returns the precisions that are measured on a device."""
        return self.precisions or (("preset",) if device.is_gpu else PRECISIONS)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every part of the benchmark needs."""

    config: RunConfig
    device: Device
    examples: tuple[Example, ...]
    shape: WorkloadShape
    folder: Path
    report: Report

    def workload(self, shape: WorkloadShape, name: str, seed: int = 0) -> tuple[BenchWorkload, Path]:
        """Makes a workload and writes it to the file that the arms read."""
        from transformers import AutoTokenizer

        name_or_path = model_path(self.config.model.name)
        tokenizer: Any = AutoTokenizer.from_pretrained(name_or_path, revision=self.config.model.revision)
        template = template_of(tokenizer, self.config.model.name)
        special = {tokenizer.eos_token_id, *tokenizer.all_special_ids}
        made = make_workload(
            shape,
            self.examples,
            lambda messages: tokenizer(template.render(messages), add_special_tokens=False)["input_ids"],
            vocabulary=[i for i in range(len(tokenizer)) if i not in special],
            stop_id=tokenizer.eos_token_id,
            seed=seed,
        )
        path = self.folder / f"{name}.workload.json"
        made.write(path)
        return made, path


@contextmanager
def open_bench(composed: ResolvedConfig, protocol: Protocol, report: Report = lambda text: None) -> Iterator[Bench]:
    """Yields the benchmark with a temporary folder. Raises what `preflight.prepare` raises."""
    prepared = prepare(composed, force=True)
    config, device = prepared.plan.config, prepared.device
    # On a CPU the replayed step is short, on a GPU as long as the run's completions may be.
    prompt, completion = (200, config.grpo.max_completion_tokens) if device.is_gpu else (48, 96)
    shape = WorkloadShape(config.grpo.prompts_per_step, config.grpo.group_size, prompt, completion)
    with tempfile.TemporaryDirectory(prefix="lowmem-rl-bench-") as folder:
        yield Bench(config, device, prepared.train, replace(shape, **protocol.shape), Path(folder), report)


def replay_config(config: RunConfig, shape: WorkloadShape, steps: int, precision: str = "preset") -> RunConfig:
    """Returns the run that replays a shape: recorded rewards, no dropout, no clipping of gradients."""
    settings = {
        "grpo.prompts_per_step": shape.prompts,
        "grpo.group_size": shape.group_size,
        "grpo.max_prompt_tokens": max(config.grpo.max_prompt_tokens, 2 * shape.prompt_tokens),
        "grpo.max_completion_tokens": shape.completion_tokens,
        "grpo.steps": steps,
        "grpo.steps_per_rollout": 1,
        "grpo.passes_per_rollout": 1,
        "adapter.dropout": 0.0,
        "optimizer.max_grad_norm": _UNCLIPPED,
        "memory.micro_batch": divisors(shape.prompts * shape.group_size, config.micro_batch)[-1],
        "logging.report_to": (),
    }
    settings |= FP32 if precision == "fp32" else {}
    return with_overrides(config, settings).model_copy(update={"rewards": {"recorded": 1.0}})


def replays(
    bench: Bench,
    protocol: Protocol,
    arms: Sequence[Arm],
    precision: str,
    progress: Progress | None = None,
    save: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Returns each set's results in one precision: all arms are loaded, one computes at a time.

    `save` gets the results so far after each set. On a CPU one more step of each arm is profiled.
    """
    steps, device = protocol.steps_on(bench.device), bench.device
    config = replay_config(bench.config, bench.shape, steps, precision)
    if precision == "fp32":
        device = replace(device, dtype="float32")
    progress = progress or Progress(bench.report, [arm.name for arm in arms], steps, len(protocol.sets))
    bench.report(f"{precision}: loading {', '.join(arm.name for arm in arms)}")
    peak = peak_of_arms(device.dtype) if steps > protocol.steps else None
    results = {}
    with alive(arms, config, device, bench.folder) as processes:
        for name in protocol.sets:
            progress.begin(f"{precision}, {name}")
            shape = replace(bench.shape, **SETS[name])
            workload, path = bench.workload(shape, f"{precision}-{name}", protocol.seed)
            tasks = {arm.name: ArmTask(str(path.with_name(arm.name)), {}, workload=str(path)) for arm in arms}
            ended = take_turns(processes, tasks, steps, progress=progress, profiled=steps - protocol.steps)
            found = _compare(ended, protocol, peak, is_gpu=device.is_gpu)
            if protocol.reorders and (
                other := _reordered(arms)
            ):  # the error of its own first gradient with the rows in another order
                task = ArmTask(str(path.with_name("reordered")), {}, seed=1, workload=str(path))
                reordered = take_turns(processes, {other: task}, 1)[other]
                found["row_order_error"] = distance(reordered.gradients, ended[other].gradients)
            results[name] = {"workload": workload.to_json()} | found
            progress.done += 1
            save(results)
    return results


def _reordered(arms: Sequence[Arm]) -> str | None:
    """Returns the arm whose rows also come in another order: plain TRL if it is there, none among our own."""
    others = [arm.name for arm in arms if arm.stack != OURS.stack]
    return TRL_FAIR.name if TRL_FAIR in arms else next(iter(others), None)


def _compare(
    ended: Mapping[str, ArmResult], protocol: Protocol, peak: Mapping[str, float] | None, *, is_gpu: bool
) -> dict[str, Any]:
    """Returns each arm's times, its ratio to ours, and the errors of its gradient and weights against ours.

    With a measured `peak` (operations a second by rows) also each arm's share of time inside matrix products.
    """
    timed = {name: arm.steps[protocol.warmup : protocol.steps] for name, arm in ended.items()}
    clock, ours = clock_of(timed, is_gpu=is_gpu), ended[OURS.name]
    others = [name for name in ended if name != OURS.name]
    comparable = [name for name in others if set(ended[name].weights) == set(ours.weights)]  # where as much learns
    return {
        "clock": clock,
        "arms": {
            name: summary(timed[name], arm, clock) | (_products(arm.steps[-1], peak) if peak else {})
            for name, arm in ended.items()
        },
        "ratios": {
            name: {kind: ratio_of(timed[name], timed[OURS.name], kind).to_json() for kind in ("wall", "cpu")}
            for name in others
        },
        "phase_ratios": {
            name: {
                phase: ratio_of(_of_phase(timed[name], phase), _of_phase(timed[OURS.name], phase), clock).to_json()
                for phase in ("rollout", "update")
            }
            for name in others
        },
        "gradient_errors": {name: distance(ours.gradients, ended[name].gradients) for name in comparable},
        "weight_errors": {name: distance(ours.weights, ended[name].weights) for name in comparable},
    }


def _products(profiled: Step, peak: Mapping[str, float]) -> dict[str, Any]:
    return {"products": profiled["products"] | {"shares": shares(profiled["products"], peak), "peak": dict(peak)}}


def _of_phase(steps: Sequence[Step], phase: str) -> list[Step]:
    return [step["phases"][phase] for step in steps]
