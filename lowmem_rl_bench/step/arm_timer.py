"""Where a step's time goes, by wall and by the process's own CPU time, and how much work it did.

The same methods are wrapped in every arm, on the instance: Unsloth rewrites classes. On a GPU the queue is emptied at
the borders of phases, and only there.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from lowmem_rl.engine import continuous_batching
from lowmem_rl_bench.step.token_replay import SamplingCounts

PHASES = ("rollout", "scoring", "update", "optimizer")
"""`update` is forward and backward; what is in none of them is "other"."""


@dataclass(slots=True)
class ArmSeconds:
    """Time by the wall clock, and by this process's CPU clock."""

    wall: float = 0.0
    cpu: float = 0.0

    @classmethod
    def now(cls) -> "ArmSeconds":
        return cls(time.perf_counter(), time.process_time())

    def add_since(self, began: "ArmSeconds") -> None:
        now = ArmSeconds.now()
        self.wall += now.wall - began.wall
        self.cpu += now.cpu - began.cpu


@dataclass(slots=True)
class UpdateCounts:
    """Work that the forward and backward passes of one step did."""

    micro_batches: int = 0
    rows: int = 0
    tokens: int = 0
    """Tokens that went through the model with a gradient, padding included; a shared prompt once."""
    completion_tokens: int = 0
    """Those in the loss."""
    attended: int = 0
    """Pairs of a query and a key in attention, masked ones too: the quadratic part."""


@dataclass
class ArmTimer:
    """The step that runs now; `restart` begins the next."""

    is_gpu: bool
    began: ArmSeconds = field(default_factory=ArmSeconds.now)
    phases: dict[str, ArmSeconds] = field(default_factory=dict)
    counts: SamplingCounts = field(default_factory=SamplingCounts)
    updates: UpdateCounts = field(default_factory=UpdateCounts)
    useful_tokens: int = 0
    reward: float = 0.0
    """Mean reward of the completions of the step."""

    def restart(self) -> None:
        self.phases = {name: ArmSeconds() for name in PHASES}
        self.updates, self.useful_tokens = UpdateCounts(), 0
        self.counts.restart()  # those who count hold this very object
        self._drain()
        self.began = ArmSeconds.now()

    def read(self) -> dict[str, Any]:
        """Returns the step as JSON data."""
        self._drain()
        whole = ArmSeconds()
        whole.add_since(self.began)
        phases = {name: asdict(spent) for name, spent in self.phases.items()}
        for clock in ("wall", "cpu"):
            spent = sum(phases[name][clock] for name in PHASES)
            phases.setdefault("other", {})[clock] = getattr(whole, clock) - spent
        return {
            **asdict(whole),
            "phases": phases,
            "sampled": asdict(self.counts),
            "updated": asdict(self.updates),
            "useful_tokens": self.useful_tokens,
            "reward": self.reward,
        }

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds what runs inside to a phase."""
        self._drain()
        began = ArmSeconds.now()
        yield
        self._drain()
        self.phases[name].add_since(began)

    def _drain(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return run

    def watch(self, trainer: Any) -> None:
        """Times and counts the steps of a trainer."""
        trainer._generate_single_turn = self.timed("rollout", trainer._generate_single_turn)
        trainer._calculate_rewards = self._counted_rewards(trainer, trainer._calculate_rewards)
        trainer.compute_loss = self._counted_loss(trainer.compute_loss)
        accelerator = trainer.accelerator
        accelerator.backward = self.timed("update", accelerator.backward)
        accelerator.clip_grad_norm_ = self.timed("optimizer", accelerator.clip_grad_norm_)
        trainer.add_callback(_optimizer_callback(self))

    def count_tokens(self, model: Any) -> None:
        """Counts what the model reads with a gradient; recomputed activations begin behind the embedding."""

        def read(embedding: Any, inputs: Any, output: Any) -> None:
            if torch.is_grad_enabled():
                self.updates.tokens += inputs[0].numel()

        model.get_input_embeddings().register_forward_hook(read)

    def _counted_rewards(self, trainer: Any, calculate: Callable[..., Any]) -> Callable[..., Any]:
        def calculated(inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> Any:
            with self.phase("scoring"):
                scores = calculate(inputs, prompts, completions, completion_ids)
            self.useful_tokens = sum(map(len, completion_ids))
            self.reward = float((scores * trainer.reward_weights.to(scores.device)).nansum(1).mean())
            return scores

        return calculated

    def _counted_loss(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        def computed(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            read = self.updates.tokens
            with self.phase("update"):
                loss = compute(model, inputs, *args, **kwargs)
            self.updates.micro_batches += 1
            self.updates.rows += len(inputs["completion_ids"])
            self.updates.attended += _pairs(inputs, self.updates.tokens - read)
            self.updates.completion_tokens += int(inputs["completion_mask"].sum())
            return loss

        return computed


def _pairs(inputs: Any, tokens: int) -> int:
    """Returns the pairs of a micro-batch of which `tokens` were read: prompts see themselves, completions both."""
    prompt, completion = inputs["prompt_ids"].shape[1], inputs["completion_ids"].shape[1]
    completion_tokens = inputs["completion_ids"].numel()
    return completion_tokens * (prompt + completion) + (tokens - completion_tokens) * prompt


def _optimizer_callback(clock: ArmTimer) -> Any:
    began = ArmSeconds()

    def begins(*args: Any, **kwargs: Any) -> None:
        clock._drain()
        began.wall, began.cpu = time.perf_counter(), time.process_time()

    def ends(*args: Any, **kwargs: Any) -> None:
        clock._drain()
        clock.phases["optimizer"].add_since(began)

    return type("OptimizerClock", (TrainerCallback,), {"on_pre_optimizer_step": begins, "on_optimizer_step": ends})()


def count_engine(counts: SamplingCounts) -> None:
    """Counts what our engine reads and picks in this process."""
    engine: Any = continuous_batching
    pick, prefill, step = engine.pick, engine.prefill, engine.step

    def counted_pick(logits: Any, *args: Any) -> Any:
        counts.picked(len(logits))
        return pick(logits, *args)

    def counted_prefill(decoder: Any, ids: Any, lengths: Any) -> Any:
        counts.prefill_tokens += ids.numel()
        return prefill(decoder, ids, lengths)

    def counted_step(decoder: Any, tokens: Any, places: Any, cache: Any, longest: int) -> Any:
        counts.attended += len(tokens) * longest
        return step(decoder, tokens, places, cache, longest)

    engine.pick, engine.prefill, engine.step = counted_pick, counted_prefill, counted_step
