"""A pretrained model through the real stack: SmolLM2-135M in 4 bit, its own vocabulary, chat template and width."""

from math import isfinite
from pathlib import Path

import pytest
import torch

from lowmem_rl.config.compose import ResolvedConfig, resolve
from lowmem_rl.engine import continuous_batching
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.hf_generate import answer
from lowmem_rl.engine.policy import load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.entrypoints.train import run
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows

pytestmark = pytest.mark.real_model


def resolved(model: Path, *settings: str) -> ResolvedConfig:
    small = ("grpo.group_size=4", "grpo.prompts_per_step=2", "grpo.max_completion_tokens=8", "grpo.steps=1")
    rest = ("model.bits=4", "task.levels=[0]", "memory.micro_batch=4", "memory.checkpointing=none")
    last = ("rollout.weights=merged", "eval.examples=2", "eval.every=0")
    return resolve(preset="tiny-cpu", settings=[f"model.name={model}", *small, *rest, *last, *settings])


@pytest.fixture(scope="module")
def sampler(smollm2: Path) -> Sampler:
    config, device = resolved(smollm2).config, Device("cpu", "float32")
    prepare_process(config, device)
    policy = load_policy(config, device)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.002
    return Sampler(policy, config)


def test_our_engine_answers_as_generate_does(sampler: Sampler) -> None:
    assert sampler.backend.engine == "lowmem"
    asked = [[{"role": "user", "content": "What is 3 + 4?"}]]
    ((_, completion),) = sampler.answers(asked, GREEDY, max_tokens=12, batch=1)
    assert completion.text.strip()
    assert [completion] == list(answer(sampler.policy, asked, GREEDY, max_tokens=12, batch=1))


def test_what_prompts_begin_with_is_read_once_and_the_log_probs_are_the_policys(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    prefill_packed = continuous_batching.prefill_packed

    def counted(decoder, beginning, own):
        read.extend((len(beginning), sum(map(len, own))))
        return prefill_packed(decoder, beginning, own)

    monkeypatch.setattr(continuous_batching, "prefill_packed", counted)
    prompts = [sampler.policy.tokenize([{"role": "user", "content": f"What is {n} + 2?"}]) for n in (1, 2, 3, 4)]
    beginning = next(i for i, ids in enumerate(zip(*prompts, strict=False)) if len(set(ids)) > 1)
    found = sampler.rollout([prompt for prompt in prompts for _ in range(2)], [str(row) for row in range(8)])
    assert beginning > 20  # the template's own system turn
    assert read == [beginning, sum(len(prompt) - beginning for prompt in prompts)]
    assert len({tuple(row.ids) for row in found}) > 4  # rows of a group differ
    assert sampler.gap is not None
    assert sampler.gap < 1e-4


def test_a_step_trains_it(smollm2: Path, tmp_path: Path) -> None:
    # Every completion is cut off, so that the rewards of a group differ by their random part alone.
    run(resolved(smollm2, "rewards.boxed_answer=0", "rewards.random=1.0"), tmp_path / "run")
    out = RunDir(tmp_path / "run")
    (row,) = read_rows(out.metrics)
    assert isfinite(row["loss"])
    assert row["grad_norm"] > 0
    assert read_json(out.evaluations)["after"]["num_examples"] == 2
