"""Expanded copies of layers from one rollout to the next: the same memory, and for frozen layers the same numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.decoder import prefill
from lowmem_rl.engine.decoder_weights import merged
from lowmem_rl.engine.device import cpu_device
from lowmem_rl.engine.kept_copies import KeptCopies
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.entrypoints.train import run
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.memory.kept_copies import frozen_share, kept_copies
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.plan import plan
from lowmem_rl.storage.run_dir import RunDir, read_json
from lowmem_rl.units import GIB

WHOLE = ("trainable.method=full", "model.bits=16")
ADAPTED = 'adapter.targets=["q_proj", "down_proj"]'


def planned(*settings: str, gib: float = 64) -> Any:
    config = resolve(preset="tiny-cpu", settings=["rollout.weights=merged", *settings]).config
    return plan(config, load_shape("tiny"), None, int(gib * GIB))


def loaded(*settings: str) -> Policy:
    config = planned(*settings).config
    device = cpu_device(config)
    prepare_process(config, device)
    return load_policy(config, device)


def weights_of(policy: Policy, kept: KeptCopies | None) -> list[torch.Tensor]:
    blocks = merged(policy.model, 64, kept).blocks
    return [part.keywords["weight"] for block in blocks for part in (block.qkv, block.out, block.gate_up, block.down)]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (("trainable.layers=last:1",), 8),
        ((ADAPTED,), 6),  # of three layers what `o_proj` reads, and what `gate_proj` and `up_proj` do
        (("trainable.layers=last:1", *WHOLE), 8),
        (
            ("trainable.schedule=lisa", "trainable.every=1", "trainable.layers=last:2", *WHOLE),
            4,
        ),  # one of the two rests now, not later
        (("trainable.layers=last:2", 'trainable.modules=["o_proj"]', *WHOLE), 10),
        ((), 0),
    ],
)
def test_only_layers_that_never_learn_are_kept(settings: tuple[str, ...], kept: int) -> None:
    policy, copies = loaded(*settings), KeptCopies()
    before = weights_of(policy, copies)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.01) if weight.requires_grad else None
    again, wanted = weights_of(policy, copies), weights_of(policy, None)
    assert all(map(torch.equal, again, wanted))
    assert sum(one is other for one, other in zip(before, again, strict=True)) == kept == len(copies.maps)
    size = sum(part.keywords["weight"].nbytes for part in copies.maps.values())
    found = planned(*settings)
    workload = replace(found.estimate.workload, kept_share=frozen_share(found.config, found.target.shape))
    assert kept_copies(workload, found.target.shape).expected_bytes == pytest.approx(size, abs=1)


@pytest.mark.parametrize(
    "settings", [(), ("trainable.layers=last:1",), ("model.bits=16",), WHOLE, ("model.dtype=bfloat16",)]
)
def test_other_layers_are_copied_into_the_same_memory(settings: tuple[str, ...]) -> None:
    policy, copies = loaded(*settings), KeptCopies(keeps_memory=True)
    merged(policy.model, 64, copies)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.01) if weight.requires_grad else None
    again, wanted = merged(policy.model, 64, copies), merged(policy.model, 64)
    with torch.inference_mode():
        found, expected = (prefill(one, torch.arange(6)[None], torch.tensor([6]))[0] for one in (again, wanted))
    assert torch.equal(found, expected)
    found_plan = planned(*settings)
    kept = kept_copies(found_plan.estimate.workload, found_plan.target.shape)
    assert found_plan.keeps_copies
    assert sum(memory.nbytes for memory in copies.memory_of.values()) == pytest.approx(kept.expected_bytes, abs=1)


def test_without_room_nothing_is_kept_and_the_run_stays_as_it_is() -> None:
    settings = ("trainable.layers=last:1", "memory.micro_batch=64", "memory.checkpointing=none")
    roomy = planned(*settings)
    without = roomy.target.estimate(roomy.config)
    assert roomy.estimate.phases["backward"] != without.phases["backward"]
    tight = planned(*settings, gib=without.upper_bytes / GIB)
    assert tight.memory_verdict == "fits"
    assert not tight.keeps_copies
    assert tight.config == roomy.config


def test_a_run_keeps_them(tmp_path: Path) -> None:
    rows = ("grpo.steps=2", "grpo.prompts_per_step=2", "memory.micro_batch=8", "eval.examples=4")
    settings = ("trainable.layers=last:1", *rows)
    composed = resolve(preset="tiny-cpu", settings=["rollout.weights=merged", *settings])
    run(composed, tmp_path / "run")
    phases = read_json(RunDir(tmp_path / "run").estimate)["phases"]
    assert "kept copies of all layers" in phases["backward"]
    assert "kept copies of all layers" not in phases["rollout"]


def test_after_a_failed_allocation_nothing_is_kept(tmp_path: Path) -> None:
    settings = ("trainable.layers=last:1",)
    policy, config = loaded(*settings), planned(*settings).config
    sampler, said = Sampler(policy, config), list[str]()
    sampler.kept = KeptCopies()
    limits = OomPolicy(config, tmp_path / "recoveries.jsonl", said.append, lambda phase, settings: "")
    limits.free_memory = sampler.drop_copies
    weights_of(policy, sampler.kept)
    assert limits.halve_rows("backward", 8, "CUDA out of memory.") == 4
    assert sampler.kept is None
